"""What every test may ask for."""

import gc
import signal

# A shell that starts a run in the background has it ignore SIGINT, and all that it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As services/importing.py: thousands of tests are collected in two thirds of the time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


pytest_plugins = [
    "tests.environment",
    "tests.declared",
    "tests.containers",
    "tests.infrastructure",
    "tests.tracing",
]
