import pytest

from chassis.testing import Clock
from users_service.adapters.in_memory import (
    InMemorySignInAttempts,
    InMemoryTransactor,
    InMemoryViews,
)
from users_service.application.ports import SignInAttempts, Views

from .ports_suite import RepositoriesSuite, SignInAttemptsSuite, ViewsSuite


@pytest.fixture
def transact() -> InMemoryTransactor:
    return InMemoryTransactor(Clock())


@pytest.fixture
def views(transact: InMemoryTransactor) -> Views:
    return InMemoryViews(transact)


@pytest.fixture
def attempts() -> SignInAttempts:
    return InMemorySignInAttempts()


class TestInMemoryRepositories(RepositoriesSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemoryViews(ViewsSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemorySignInAttempts(SignInAttemptsSuite):
    """Keeps the same promises as PostgreSQL."""
