"""The page that a random run leaves behind."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.random_run import Outcome


def page(outcome: "Outcome") -> str:
    return f"<pre>{outcome.as_dict()}</pre>"
