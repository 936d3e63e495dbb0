import resource
import signal
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from chassis.web.server import http_server
from tests.unit.chassis.conftest import Logged, settings


@pytest.fixture
def files() -> Iterator[tuple[int, int]]:
    """The soft and the hard limit of files, as they are again after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_http_server_installs_no_signal_handler() -> None:
    server = http_server(FastAPI(), settings())
    before = signal.getsignal(signal.SIGTERM)

    with server.capture_signals():
        # uvicorn's own handler would cut requests off when it is asked to stop a second time.
        assert signal.getsignal(signal.SIGTERM) is before


class TestTheLimitOfFiles:
    def test_is_raised_as_far_as_it_goes(self, files: tuple[int, int]) -> None:
        _, hard = files
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

        http_server(FastAPI(), settings())

        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)

    def test_that_is_too_low_lowers_the_bound_of_connections(
        self, monkeypatch: pytest.MonkeyPatch, logged: Logged
    ) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (500, 500))

        server = http_server(
            FastAPI(), settings(http_max_connections=1000, http_max_connections_per_network=200)
        )

        assert (server.limits.total, server.limits.per_network) == (125, 25)
        (line,) = logged
        assert line["event"] == "fewer connections than set, for lack of files"
