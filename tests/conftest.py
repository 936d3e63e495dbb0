"""What every test may ask for."""

import signal

# A shell that starts a run in the background has it ignore SIGINT, and all that it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.environment",
    "tests.declared",
    "tests.containers",
    "tests.infrastructure",
    "tests.tracing",
]
