"""Edits of a text that fail if the text is not as expected."""

import re
from collections.abc import Callable


class CannotEdit(Exception):
    """The place of an edit was not found."""


def after_last(pattern: str, line: str) -> Callable[[str], str]:
    """Add a line after the last line that matches."""

    def edit(text: str) -> str:
        found = list(re.finditer(rf"(?m)^{pattern}$", text))
        if not found:
            raise CannotEdit(f"no line like {pattern}; add: {line.strip()}")
        end = found[-1].end()
        return f"{text[:end]}\n{line}{text[end:]}"

    return edit


def before(pattern: str, addition: str) -> Callable[[str], str]:
    """Add a text where the pattern has its first, empty group."""

    def edit(text: str) -> str:
        found = re.search(pattern, text)
        if found is None:
            raise CannotEdit(f"no place like {pattern}; add: {addition.strip()}")
        return text[: found.start(1)] + addition + text[found.start(1) :]

    return edit


def with_consumer(constant: str, name: str) -> Callable[[str], str]:
    """Add a name to the ``consumers`` of a topic, in the order of the alphabet."""

    def edit(text: str) -> str:
        found = re.search(
            rf"(?m)^{constant} = Topic\((?:\n    .*)*?\n    consumers=\((.*?)\),", text
        )
        if found is None:
            raise CannotEdit(f'no consumers of {constant}; add: "{name}"')
        names = sorted({*re.findall(r'"(\w+)"', found[1]), name})
        listed = ", ".join(f'"{each}"' for each in names)
        return text[: found.start(1)] + listed + text[found.end(1) :]

    return edit
