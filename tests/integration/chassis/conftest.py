"""Log lines of one line each: with every local variable of a traceback they would take seconds."""

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def plain_log_lines() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
