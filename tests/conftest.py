"""What every test may ask for."""

pytest_plugins = ["tests.declared", "tests.infrastructure", "tests.tracing"]
