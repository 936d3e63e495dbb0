"""What a process of the cluster gets of its caller's environment."""

import ast
import os
from pathlib import Path

import pytest

from local_cluster.environment import forget_settings_of_libraries, inherited
from local_cluster.settings import REPOSITORY

_OF_THE_CALLER = {
    "HTTP_PROXY": "http://127.0.0.1:1",
    "all_proxy": "socks5://127.0.0.1:1",
    "NO_PROXY": "::1/128",
    "SSL_CERT_FILE": "/gone.pem",
    "PGOPTIONS": "-c search_path=elsewhere",
    "OTEL_SDK_DISABLED": "true",
    "PYTHONPATH": "/elsewhere",
    "PYTHONWARNINGS": "error",
    "JAVA_TOOL_OPTIONS": "-Xmx1m",
    "LC_ALL": "de_DE.ISO-8859-1",
    "LOG_LEVEL": "DEBUG",
}
# They have the client that ignores the environment, or are not ours.
_CLIENTS = {"AsyncClient", "Client", "AsyncHTTPTransport", "get", "post", "request"}


class TestWhatIsHandedOn:
    def test_is_what_a_process_must_have_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name, value in _OF_THE_CALLER.items():
            monkeypatch.setenv(name, value)

        handed_on = inherited(tmp_path)

        assert handed_on.keys() <= {
            *("PATH", "TMPDIR", "LD_LIBRARY_PATH", "FAILPOINTS"),
            *("HOME", "LC_ALL"),
        }
        assert handed_on["PATH"] == os.environ["PATH"]
        assert (handed_on["HOME"], handed_on["LC_ALL"]) == (str(tmp_path), "C.UTF-8")

    def test_libraries_in_this_process_do_not_read_the_callers_settings_either(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in _OF_THE_CALLER.items():
            monkeypatch.setenv(name, value)

        forget_settings_of_libraries()

        assert not [name for name in os.environ if name.startswith(("PG", "OTEL_"))]
        assert os.environ["HTTP_PROXY"], "by which jars are fetched"


def test_every_http_client_of_ours_is_made_where_the_environment_is_ignored() -> None:
    packages = ("local_cluster", "chassis", "verification", "gateway", "notification_service")
    made = [
        str(path.relative_to(REPOSITORY))
        for package in packages
        for path in (REPOSITORY / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "httpx"
        and node.func.attr in _CLIENTS
    ]

    assert made == ["chassis/web/client.py"]
