"""Lists to search and to read in pages; a page starts after the last item of the page before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement

T = TypeVar("T")
K = TypeVar("K")

PageLimit = Annotated[int, Field(ge=1, le=200)]


class Search(BaseModel):
    """The parameters of a search: an item is found if it matches all that are given."""

    # A misspelt filter must not find everything.
    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Page(Generic[T, K]):
    """Some items, and the key of the last of them if more follow."""

    items: Sequence[T]
    next: K | None


def page_of(found: Sequence[T], limit: int, key: Callable[[T], K]) -> Page[T, K]:
    """Return the first ``limit`` items as a page.

    :param found: the items in their order; one more than ``limit`` shows that more follow
    :param key: gives what the next page is asked for with
    """
    items = found[:limit]
    return Page(items, key(items[-1]) if len(found) > limit else None)


def matching(
    search: object, columns: Mapping[str, ColumnElement[Any]]
) -> list[ColumnElement[bool]]:
    """Return a condition for every field of the search that is not None.

    :param columns: the column that each field is compared with
    """
    return [
        column == value
        for field, column in columns.items()
        if (value := getattr(search, field)) is not None
    ]
