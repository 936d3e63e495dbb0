"""``python -m SERVICE healthy`` asks the running process, and imports nothing of the service."""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services import SERVICES, DeclaredService
from services.healthy import ask
from tests.certificates import Authority, Certificate

# What was imported before belongs to the environment, not to the command.
_RUN_AND_LIST = """
import runpy, sys
before, module = set(sys.modules), sys.argv[1]
sys.argv[1:] = ["healthy"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print(*sorted(set(sys.modules) - before), sep="\\n")
"""

every_service = pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)


@contextmanager
def answering(status: int, body: object, certificate: Certificate | None = None) -> Iterator[int]:
    """Answer requests for readiness while the block runs; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health/ready"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestHealthy:
    @every_service
    def test_exits_with_0_and_imports_the_standard_library_only(
        self, service: DeclaredService
    ) -> None:
        with answering(200, {"status": "ready", "troubles": {}}) as port:
            ended = subprocess.run(
                [sys.executable, "-c", _RUN_AND_LIST, service.module],
                env=os.environ
                | {
                    f"{service.prefix}{service.health_listener[0]}_PORT": str(port),
                    f"{service.prefix}HTTP_HOST": "0.0.0.0",  # noqa: S104 - no socket is opened
                },
                capture_output=True,
                text=True,
                check=False,
            )

        answer, *imported = ended.stdout.splitlines()
        assert (ended.returncode, answer) == (0, f"{service.name} is ready")
        ours = {each for each in imported if each.partition(".")[0] not in sys.stdlib_module_names}
        assert ours == {
            "services",
            "services.healthy",
            "services.importing",
            "services.stopping",
            service.module,
            service.package,
        }

    @every_service
    def test_exits_with_1_when_no_process_answers(self, service: DeclaredService) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", service.module, "healthy"],
            env=os.environ | {f"{service.prefix}{service.health_listener[0]}_PORT": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert ended.returncode == 1
        assert ended.stdout == (
            f"{service.name} does not answer on 127.0.0.1:1: ConnectionRefusedError\n"
        )

    def test_names_each_reason_of_a_process_that_is_not_ready(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        errors = [{"field": "database", "code": "not-ready", "message": "OSError"}]
        with answering(503, {"status": 503, "errors": errors}) as port:
            monkeypatch.setenv("USERS_HTTP_PORT", str(port))

            assert ask("users") == (False, "users is not ready: database: OSError")

    def test_takes_no_other_program_for_the_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with answering(503, {}) as port:
            monkeypatch.setenv("USERS_HTTP_PORT", str(port))

            assert ask("users") == (False, "users is not ready: 503")

    def test_asks_a_process_that_serves_https(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = Authority(tmp_path, "authority").sign("users")
        with answering(200, {}, certificate) as port:
            monkeypatch.setenv("USERS_HTTP_PORT", str(port))
            monkeypatch.setenv("USERS_HTTP_CERTIFICATE_FILE", str(certificate.certificate))

            assert ask("users") == (True, "users is ready")
