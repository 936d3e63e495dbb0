"""Transactions as CSV (RFC 4180), for spreadsheets."""

import csv
import io
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC
from typing import Final

from accounts_service.domain.account import Transaction
from accounts_service.domain.money import Currency, Money

COLUMNS: Final = (
    "position",
    "id",
    "occurred_at",
    "kind",
    "delta",
    "balance_after",
    "currency",
    "description",
)
# A spreadsheet takes a cell that begins so for a formula, and runs it (OWASP, CSV Injection); with
# wide characters where these are usual. With a decimal comma, it begins a cell at a semicolon too.
_BEGINS: Final = r"[=+\-@\t\r＝＋－＠]"  # noqa: RUF001 - the wide ones are meant
_FORMULA: Final = re.compile(rf'^(?={_BEGINS})|(?<=;)(?="*{_BEGINS})')


async def as_csv(
    batches: AsyncIterator[Sequence[Transaction]], currency: Currency
) -> AsyncIterator[bytes]:
    """Yield the head line, and then the lines of each batch."""
    yield _lines([COLUMNS])
    async for batch in batches:
        yield _lines(_cells(each, currency) for each in batch)


def _cells(transaction: Transaction, currency: Currency) -> Sequence[object]:
    return (
        transaction.position,
        transaction.id,
        transaction.occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        transaction.kind.value,
        # Not guarded: "-5.00" is to be a number.
        Money(transaction.delta, currency),
        Money(transaction.balance_after, currency),
        currency.code,
        _guarded(transaction.description),
    )


def _guarded(text: str) -> str:
    """Return a text that no spreadsheet runs: with an apostrophe before what it would run."""
    return _FORMULA.sub("'", text)


def _lines(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
