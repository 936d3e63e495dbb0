"""The guards of what owners and operators read of accounts (``docs/guarantees.md``)."""

from typing import Final

from tests.prove.mutation import Mutation

_HTTP: Final = "tests/unit/accounts_service/test_http.py::"
_AGAIN: Final = f"{_HTTP}TestAnAccountThatIsReadAgain::"

READING: Final = (
    Mutation(
        name="in-memory-while-newest",
        guard="an account is sent from memory only if its state is the database's newest",
        file="accounts_service/entrypoints/answers.py",
        before="if kept is None or kept.tag != _entity_tag(account):",
        after="if kept is None:",
        proven_by=(f"{_AGAIN}test_is_never_sent_as_it_was_before_a_change",),
    ),
    Mutation(
        name="tag-of-what-is-sent",
        guard="an account that changes while it is read is sent under its own tag",
        file="accounts_service/entrypoints/answers.py",
        before="return _Kept(_entity_tag(view), ",
        after="return _Kept(_entity_tag(account), ",
        proven_by=(f"{_AGAIN}test_that_changes_while_it_is_read_is_sent_under_its_own_tag",),
    ),
    Mutation(
        name="tag-of-one-account",
        guard="the tags of two accounts differ, so that no client takes one for the other",
        file="accounts_service/application/ports.py",
        before='return f"{self.id.hex}.{self.version}.{self.held}"',
        after='return f"{self.version}.{self.held}"',
        proven_by=(
            "tests/unit/accounts_service/test_in_memory.py::TestInMemoryAccountViews::test_two_accounts_have_no_tag_in_common",
        ),
    ),
    Mutation(
        name="tag-of-what-is-held",
        guard="an account is sent again once one of its holds has expired",
        file="accounts_service/application/ports.py",
        before='return f"{self.id.hex}.{self.version}.{self.held}"',
        after='return f"{self.id.hex}.{self.version}"',
        proven_by=(
            "tests/unit/accounts_service/test_queries.py::TestReadAccount::test_its_tag_changes_with_each_hold_that_expires",
        ),
    ),
    Mutation(
        name="export-has-an-end",
        guard="an export has the transactions that were there when it began, and no later ones",
        file="accounts_service/application/queries.py",
        before="counted = range(1, account.last_position + 1)",
        after="counted = range(1, 2**63 - 1)",
        proven_by=(
            "tests/unit/accounts_service/test_queries.py::TestReadTransactions::test_an_export_is_of_batches_without_what_is_posted_meanwhile",
        ),
    ),
    Mutation(
        name="cells-not-run",
        guard="a text in an export is none that a spreadsheet runs",
        file="accounts_service/entrypoints/csv_export.py",
        before="        _guarded(transaction.description),\n",
        after="        transaction.description,\n",
        proven_by=(f"{_HTTP}TestTransactions::test_are_exported_whole_for_a_spreadsheet",),
    ),
)
