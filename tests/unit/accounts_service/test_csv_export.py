from collections.abc import AsyncIterator, Sequence

import pytest

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.domain.account import Transaction, TransactionKind
from accounts_service.entrypoints.csv_export import as_csv
from chassis.correlation import new_id

from .making import NOW, USD


def line(description: str, delta: int = -5) -> Transaction:
    return Transaction(new_id(), 3, TransactionKind.WITHDRAWAL, delta, 70, description, NOW)


async def batches(*given: Transaction) -> AsyncIterator[Sequence[Transaction]]:
    for each in given:
        yield [each]


async def last_line(transaction: Transaction) -> str:
    chunks = [chunk async for chunk in as_csv(batches(transaction), USD)]
    return chunks[-1].decode()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])  # noqa: RUF001
async def test_a_description_that_a_spreadsheet_would_run_has_an_apostrophe_before_it(
    first: str,
) -> None:
    assert f"'{first}1+1" in await last_line(line(f"{first}1+1"))


@pytest.mark.parametrize(
    ("text", "cell"),
    [("Tea;=1+1", "Tea;'=1+1"), ("Tea;@x;-1", "Tea;'@x;'-1"), ('a;"=1"', '"a;\'""=1"""')],
)
async def test_so_has_a_part_that_is_a_cell_of_its_own_where_cells_end_with_a_semicolon(
    text: str, cell: str
) -> None:
    assert (await last_line(line(text))).endswith(f",{cell}\r\n")


@pytest.mark.parametrize("text", ["1=1", "Lunch", "'quoted'", " =1", "Tea; coffee", "1;2"])
async def test_another_description_stays_as_it_is(text: str) -> None:
    assert (await last_line(line(text))).endswith(f",{text}\r\n")


async def test_an_amount_below_zero_stays_a_number() -> None:
    assert ",-0.05,0.70,USD," in await last_line(line("Lunch"))


async def test_a_comma_a_quotation_mark_and_a_line_break_stay_in_their_cell() -> None:
    written = await last_line(line('a, "b"\nc'))

    assert written.endswith(',"a, ""b""\nc"\r\n')


async def test_without_transactions_it_is_the_head_line() -> None:
    chunks = [chunk async for chunk in as_csv(batches(), CURRENCIES["JPY"])]

    assert b"".join(chunks) == (
        b"position,id,occurred_at,kind,delta,balance_after,currency,description\r\n"
    )
