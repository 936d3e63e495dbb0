import pytest

from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor

from .making import now
from .ports_suite import AccountsSuite, ViewsSuite


@pytest.fixture
def transact() -> InMemoryTransactor:
    return InMemoryTransactor(now)


@pytest.fixture
def views(transact: InMemoryTransactor) -> InMemoryAccountViews:
    return InMemoryAccountViews(transact)


class TestInMemoryAccounts(AccountsSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemoryAccountViews(ViewsSuite):
    """Keeps the same promises as PostgreSQL."""
