"""A mutation: a guard of the product, how to take it away, and the tests that must notice."""

from dataclasses import dataclass


class Drifted(Exception):
    """The text that makes a guard is not where the mutation says, or no longer there once."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One guard.

    :param name: how ``docs/guarantees.md`` and ``make prove --only`` know it
    :param guard: what holds with it, in one sentence
    :param before: the text of ``file`` that makes the guard; it is there exactly once
    :param after: the text without the guard
    :param proven_by: the tests, as pytest names them, each of which goes red without it
    """

    name: str
    guard: str
    file: str
    before: str
    after: str
    proven_by: tuple[str, ...]

    def mutate(self, source: str) -> str:
        """Return the source without the guard.

        :raises Drifted: the guard's text is not there exactly once
        """
        found = source.count(self.before)
        if found != 1:
            raise Drifted(f"{self.name}: its text is {found} times in {self.file}, not once")
        return source.replace(self.before, self.after)
