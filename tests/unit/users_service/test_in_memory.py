import pytest

from users_service.adapters.in_memory import (
    InMemorySignInAttempts,
    InMemoryTransactor,
    InMemoryViews,
)
from users_service.application.ports import SignInAttempts, Views

from .people import Clock
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
    """The same promises as PostgreSQL's."""


class TestInMemoryViews(ViewsSuite):
    """The same promises as PostgreSQL's."""


class TestInMemorySignInAttempts(SignInAttemptsSuite):
    """The same promises as PostgreSQL's."""
