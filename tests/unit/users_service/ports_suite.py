"""What the service's ports promise; each suite runs over the fake and over PostgreSQL."""

from datetime import timedelta

import pytest

from chassis.correlation import new_id
from chassis.persistence.transactor import Transact
from users_service.application.ports import SignInAttempts, UsersWork, Views
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, PasswordHash, Username

from .people import NOW, a_task, someone

WINDOW = timedelta(minutes=5)


async def store(transact: Transact[UsersWork], *aggregates: User | Task) -> None:
    async def save(work: UsersWork) -> None:
        for each in aggregates:
            if isinstance(each, User):
                work.users.save(each)
            else:
                work.tasks.save(each)

    await transact(save)


class RepositoriesSuite:
    async def test_a_user_comes_back_as_they_were_saved(
        self, transact: Transact[UsersWork]
    ) -> None:
        kate = someone("kate", alias="katie")
        kate.roles = frozenset({Role.OPERATOR})
        kate.active = False
        await store(transact, kate)

        loaded = (await transact(lambda work: work.users.load([kate.id])))[kate.id]

        assert {**vars(loaded)} == {**vars(kate)}
        assert (loaded.version, loaded.sequence) == (1, 1)

    async def test_nobody_is_loaded_who_is_not_there(self, transact: Transact[UsersWork]) -> None:
        kate = someone("kate")
        await store(transact, kate)

        loaded = await transact(lambda work: work.users.load([new_id(), kate.id]))

        assert list(loaded) == [kate.id]

    async def test_a_change_is_kept(self, transact: Transact[UsersWork], views: Views) -> None:
        kate, joe = someone("kate"), someone("joe")
        await store(transact, kate, joe)

        async def change_both(work: UsersWork) -> None:
            for user in (await work.users.load([kate.id, joe.id])).values():
                user.replace_hash(user.password_hash, PasswordHash(f"hash of {user.id}"))
                work.users.save(user)

        await transact(change_both)

        for user in (kate, joe):
            credentials = await views.credentials_of(user.username)
            assert credentials is not None
            assert credentials.password_hash == PasswordHash(f"hash of {user.id}")

    async def test_a_username_is_had_once(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        await store(transact, someone("kate", email="first@example.com"))

        with pytest.raises(UsernameIsTaken):
            await store(transact, someone("kate", email="second@example.com"))

        assert await views.credentials_of(EmailAddress("second@example.com")) is None

    async def test_an_email_address_is_had_once(self, transact: Transact[UsersWork]) -> None:
        await store(transact, someone("kate", email="same@example.com"))

        with pytest.raises(EmailIsTaken):
            await store(transact, someone("joe", email="same@example.com"))

    async def test_nothing_is_kept_of_work_that_failed(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        await store(transact, someone("kate"))
        joe = someone("joe")

        with pytest.raises(UsernameIsTaken):
            await store(transact, joe, someone("kate", email="other@example.com"), a_task(joe.id))

        assert await views.profile_of(joe.id) is None
        assert await views.tasks_of(joe.id, before=None, limit=10) == []


class ViewsSuite:
    async def test_credentials_are_found_by_username_and_by_email(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate = someone("kate", email="k@example.com")
        await store(transact, kate, someone("joe"))

        by_name = await views.credentials_of(Username("kate"))
        by_email = await views.credentials_of(EmailAddress("k@example.com"))

        assert by_name == by_email
        assert by_name is not None
        assert by_name.user_id == kate.id
        assert by_name.password_hash == kate.password_hash
        assert by_name.active
        assert by_name.roles == frozenset()

    async def test_nobody_has_no_credentials(self, views: Views) -> None:
        assert await views.credentials_of(Username("nobody")) is None
        assert await views.credentials_of(EmailAddress("no@body.example")) is None

    async def test_a_profile_shows_what_a_user_is(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate = someone("kate", email="k@example.com", alias="katie")
        await store(transact, kate)

        profile = await views.profile_of(kate.id)

        assert profile is not None
        assert (profile.id, profile.username, profile.alias) == (kate.id, "kate", "katie")
        assert (profile.email, profile.created_at) == ("k@example.com", NOW)
        assert profile.roles == frozenset()
        assert await views.profile_of(new_id()) is None

    async def test_tasks_come_newest_first_page_by_page(
        self, transact: Transact[UsersWork], views: Views
    ) -> None:
        kate, joe = new_id(), new_id()
        first, second, third = (a_task(kate, f"task {n}") for n in (1, 2, 3))
        await store(transact, second, a_task(joe), third, first)

        page = await views.tasks_of(kate, before=None, limit=2)
        rest = await views.tasks_of(kate, before=page[-1].id, limit=2)

        assert [task.name for task in page] == ["task 3", "task 2"]
        assert [(task.id, task.name, task.created_at) for task in rest] == [
            (first.id, "task 1", NOW)
        ]


class SignInAttemptsSuite:
    async def test_they_are_counted_apart(self, attempts: SignInAttempts) -> None:
        for _ in range(2):
            await attempts.count("name kate", now=NOW, window=WINDOW)

        third = await attempts.count("name kate", now=NOW, window=WINDOW)
        other = await attempts.count("name joe", now=NOW, window=WINDOW)

        assert (third.count, other.count) == (3, 1)

    async def test_a_window_lasts_from_its_first_attempt(self, attempts: SignInAttempts) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)
        just_within = NOW + WINDOW - timedelta(microseconds=1)

        within = await attempts.count("name kate", now=just_within, window=WINDOW)
        after = await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)

        assert (within.count, within.window_began_at) == (2, NOW)
        assert (after.count, after.window_began_at) == (1, NOW + WINDOW)

    async def test_one_can_be_taken_back(self, attempts: SignInAttempts) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)
        second = await attempts.count("name kate", now=NOW, window=WINDOW)

        await attempts.uncount("name kate", second)

        assert (await attempts.count("name kate", now=NOW, window=WINDOW)).count == 2

    async def test_one_of_a_window_that_is_over_is_not_taken_from_the_next(
        self, attempts: SignInAttempts
    ) -> None:
        old = await attempts.count("name kate", now=NOW, window=WINDOW)
        await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)

        await attempts.uncount("name kate", old)

        counted = await attempts.count("name kate", now=NOW + WINDOW, window=WINDOW)
        assert counted.count == 2
