"""A mutation: a guard of the product, how to remove it, and the tests that must notice."""

from dataclasses import dataclass


class Drifted(Exception):
    """The text of a guard is not in its file, or more than once."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One guard.

    :param name: its name in ``docs/guarantees.md`` and for ``make prove``
    :param guard: what holds because of it, in one sentence
    :param before: the text of the guard; it is in ``file`` exactly once
    :param after: the text that replaces it
    :param proven_by: the tests, as pytest names them, each of which fails without it
    """

    name: str
    guard: str
    file: str
    before: str
    after: str
    proven_by: tuple[str, ...]

    def mutate(self, source: str) -> str:
        """Return the source without the guard.

        :raises Drifted: the guard's text is not in it exactly once
        """
        found = source.count(self.before)
        if found != 1:
            raise Drifted(f"{self.name}: its text is {found} times in {self.file}, not once")
        return source.replace(self.before, self.after)
