import pytest

from chassis.testing import Clock
from users_service.adapters.in_memory import (
    InMemoryKnownNetworks,
    InMemoryRecentAttempts,
    InMemoryTransactor,
    InMemoryViews,
)
from users_service.application.ports import KnownNetworks, RecentAttempts, Views

from .ports_suite import (
    KEPT,
    KnownNetworksSuite,
    RecentAttemptsSuite,
    RepositoriesSuite,
    ViewsSuite,
)


@pytest.fixture
def transact() -> InMemoryTransactor:
    return InMemoryTransactor(Clock())


@pytest.fixture
def views(transact: InMemoryTransactor) -> Views:
    return InMemoryViews(transact)


@pytest.fixture
def attempts() -> RecentAttempts:
    return InMemoryRecentAttempts()


@pytest.fixture
def known_networks() -> KnownNetworks:
    return InMemoryKnownNetworks(KEPT)


class TestInMemoryRepositories(RepositoriesSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemoryViews(ViewsSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemoryRecentAttempts(RecentAttemptsSuite):
    """Keeps the same promises as PostgreSQL."""


class TestInMemoryKnownNetworks(KnownNetworksSuite):
    """Keeps the same promises as PostgreSQL."""
