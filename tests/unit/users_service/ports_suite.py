"""The promises of the service's ports; each suite runs on the fake and on PostgreSQL."""

from datetime import timedelta

import pytest

from chassis.correlation import new_id
from chassis.persistence.transactor import Transact
from chassis.web.paging import Page
from users_service.application.ports import (
    KnownNetworks,
    RecentAttempts,
    TaskView,
    UsersWork,
    Views,
)
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken, UserNotFound
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, PasswordHash, Username

from .people import NOW, a_task, a_user

WINDOW = timedelta(minutes=5)
KEPT = timedelta(days=30)


async def store(transact: Transact[UsersWork], *aggregates: User | Task) -> None:
    async def save(work: UsersWork) -> None:
        for each in aggregates:
            if isinstance(each, User):
                work.users.save(each)
            else:
                work.tasks.save(each)

    await transact(save)


class RepositoriesSuite:
    async def test_a_user_is_loaded_as_they_were_saved(self, transact: Transact[UsersWork]) -> None:
        kate = a_user("kate", alias="katie")
        kate.roles = frozenset({Role.OPERATOR})
        kate.active = False
        await store(transact, kate)

        loaded = (await transact(lambda work: work.users.load([kate.id])))[kate.id]

        assert {**vars(loaded)} == {**vars(kate)}
        assert (loaded.version, loaded.sequence) == (1, 1)

    async def test_an_unknown_id_is_left_out(self, transact: Transact[UsersWork]) -> None:
        kate = a_user("kate")
        await store(transact, kate)

        loaded = await transact(lambda work: work.users.load([new_id(), kate.id]))

        assert list(loaded) == [kate.id]

    async def test_a_change_is_stored(self, transact: Transact[UsersWork], views: Views) -> None:
        kate, joe = a_user("kate"), a_user("joe")
        await store(transact, kate, joe)

        async def change_both(work: UsersWork) -> None:
            for user in (await work.users.load([kate.id, joe.id])).values():
                user.replace_hash(user.identity.password_hash, PasswordHash(f"hash of {user.id}"))
                work.users.save(user)

        await transact(change_both)

        for user in (kate, joe):
            credentials = await views.credentials_of(user.identity.username)
            assert credentials is not None
            assert credentials.password_hash == PasswordHash(f"hash of {user.id}")

    async def test_a_username_is_unique(self, transact: Transact[UsersWork], views: Views) -> None:
        await store(transact, a_user("kate", email="first@example.com"))

        with pytest.raises(UsernameIsTaken):
            await store(transact, a_user("kate", email="second@example.com"))

        assert await views.credentials_of(EmailAddress("second@example.com")) is None

    async def test_an_email_address_is_unique(self, transact: Transact[UsersWork]) -> None:
        await store(transact, a_user("kate", email="same@example.com"))

        with pytest.raises(EmailIsTaken):
            await store(transact, a_user("joe", email="same@example.com"))

    async def test_nothing_is_stored_of_a_unit_of_work_that_fails(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        await store(transact, a_user("kate"))
        joe = a_user("joe")

        with pytest.raises(UsernameIsTaken):
            await store(transact, joe, a_user("kate", email="other@example.com"), a_task(joe.id))

        with pytest.raises(UserNotFound):
            await views.profile_of(joe.id)
        assert (await views.tasks_of(joe.id, before=None, limit=10)).items == []


class ViewsSuite:
    async def test_credentials_are_found_by_username_and_by_email(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate = a_user("kate", email="k@example.com")
        await store(transact, kate, a_user("joe"))

        by_name = await views.credentials_of(Username("kate"))
        by_email = await views.credentials_of(EmailAddress("k@example.com"))

        assert by_name == by_email
        assert by_name is not None
        assert by_name.user_id == kate.id
        assert by_name.password_hash == kate.identity.password_hash
        assert by_name.active
        assert by_name.roles == frozenset()

    async def test_an_unknown_name_has_no_credentials(self, views: Views) -> None:
        assert await views.credentials_of(Username("unknown")) is None
        assert await views.credentials_of(EmailAddress("unknown@example.com")) is None

    async def test_a_profile_shows_the_user(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate = a_user("kate", email="k@example.com", alias="katie")
        await store(transact, kate)

        profile = await views.profile_of(kate.id)

        assert profile is not None
        assert (profile.id, profile.username, profile.alias) == (kate.id, "kate", "katie")
        assert (profile.email, profile.created_at) == ("k@example.com", NOW)
        assert profile.roles == frozenset()
        with pytest.raises(UserNotFound):
            await views.profile_of(new_id())

    async def test_tasks_are_listed_newest_first_in_pages(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate, joe = new_id(), new_id()
        first, second, third = (a_task(kate, f"task {n}") for n in (1, 2, 3))
        await store(transact, second, a_task(joe), third, first)

        page = await views.tasks_of(kate, before=None, limit=2)
        rest = await views.tasks_of(kate, before=page.next, limit=2)

        assert [task.name for task in page.items] == ["task 3", "task 2"]
        assert rest == Page([TaskView(first.id, "task 1", NOW)], None)


class RecentAttemptsSuite:
    async def test_each_source_is_counted_separately(self, attempts: RecentAttempts) -> None:
        for _ in range(2):
            await attempts.count("name kate", now=NOW, window=WINDOW)

        third = await attempts.count("name kate", now=NOW, window=WINDOW)
        other = await attempts.count("name joe", now=NOW, window=WINDOW)

        assert (third.count, other.count) == (3, 1)

    async def test_a_window_starts_with_its_first_attempt(self, attempts: RecentAttempts) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)
        just_within = NOW + WINDOW - timedelta(microseconds=1)

        within = await attempts.count("name kate", now=just_within, window=WINDOW)
        after = await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)

        assert (within.count, within.window_began_at) == (2, NOW)
        assert (after.count, after.window_began_at) == (1, NOW + WINDOW)

    async def test_an_attempt_can_be_taken_back(self, attempts: RecentAttempts) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)
        second = await attempts.count("name kate", now=NOW, window=WINDOW)

        await attempts.uncount("name kate", second)

        assert (await attempts.count("name kate", now=NOW, window=WINDOW)).count == 2

    async def test_an_attempt_of_an_old_window_is_not_taken_back_from_the_next(
        self, attempts: RecentAttempts
    ) -> None:
        old = await attempts.count("name kate", now=NOW, window=WINDOW)
        await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)

        await attempts.uncount("name kate", old)

        counted = await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)
        assert counted.count == 2


class KnownNetworksSuite:
    """The promises of known networks that are kept for 30 days."""

    async def test_a_network_is_known_for_who_signed_in_there(
        self, known_networks: KnownNetworks
    ) -> None:
        await known_networks.add("kate", "192.0.2.1", now=NOW)

        assert await known_networks.has("kate", "192.0.2.1", now=NOW)
        assert not await known_networks.has("joe", "192.0.2.1", now=NOW)
        assert not await known_networks.has("kate", "192.0.2.2", now=NOW)

    async def test_it_is_forgotten_after_a_while_without_another_sign_in(
        self, known_networks: KnownNetworks
    ) -> None:
        await known_networks.add("kate", "192.0.2.1", now=NOW)
        await known_networks.add("kate", "192.0.2.1", now=NOW + timedelta(hours=1))
        over = NOW + timedelta(hours=1) + KEPT

        assert await known_networks.has("kate", "192.0.2.1", now=over - timedelta(microseconds=1))
        assert not await known_networks.has("kate", "192.0.2.1", now=over)
