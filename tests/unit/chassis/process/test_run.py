import signal

import uvicorn
from fastapi import FastAPI

from chassis.process.run import _Server


def test_the_http_server_installs_no_signal_handler() -> None:
    server = _Server(uvicorn.Config(FastAPI(), log_config=None))
    before = signal.getsignal(signal.SIGTERM)

    with server.capture_signals():
        # uvicorn's own handler would cut requests off when it is asked to stop a second time.
        assert signal.getsignal(signal.SIGTERM) is before
