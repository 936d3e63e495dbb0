import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from users_service.adapters.in_memory import (
    InMemorySignInAttempts,
    InMemoryTransactor,
    InMemoryViews,
    PlainHasher,
    ReadableTokens,
)
from users_service.application.ports import IssuedToken
from users_service.application.sign_in import SignIn, SignInHandler, SignInLimits
from users_service.domain.errors import TooManySignIns, UserError, WrongCredentials
from users_service.domain.user import Role, User
from users_service.domain.values import Password

from .people import Clock, someone
from .ports_suite import store

RIGHT = "correct horse"
WRONG = "wrong horse"
WINDOW_S = 300.0


class Door:
    """The sign-in over fakes: three may fail for a name, five from a network."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transactor = InMemoryTransactor(self.clock)
        self.hasher = PlainHasher()
        self.sign_in = SignInHandler(
            views=InMemoryViews(self.transactor),
            hasher=self.hasher,
            tokens=ReadableTokens(),
            attempts=InMemorySignInAttempts(),
            limits=SignInLimits(per_name=3, per_network=5, window=timedelta(seconds=WINDOW_S)),
            transact=self.transactor,
            now=self.clock,
        )

    async def knows(self, username: str, change: Callable[[User], None] = lambda _: None) -> User:
        user = someone(username, password_hash=await PlainHasher().hash(Password.parse(RIGHT)))
        change(user)
        await store(self.transactor, user)
        return user

    async def try_(
        self, name: str = "kate", password: str = WRONG, network: str = "192.0.2.1"
    ) -> IssuedToken:
        return await self.sign_in(SignIn(name, Password.offered(password), network))

    async def fail(self, times: int, name: str = "kate", network: str = "192.0.2.1") -> None:
        for _ in range(times):
            with pytest.raises(WrongCredentials):
                await self.try_(name, network=network)


@pytest.fixture
def door() -> Door:
    return Door()


class TestSignIn:
    @pytest.mark.parametrize("name", ["kate", "KATE ", "kate@example.com", " Kate@Example.com"])
    async def test_username_and_email_address_both_lead_in(self, door: Door, name: str) -> None:
        kate = await door.knows("kate")

        token = await door.try_(name, RIGHT)

        assert token.text.startswith(str(kate.id))

    async def test_the_token_has_the_users_roles(self, door: Door) -> None:
        await door.knows("root", lambda user: setattr(user, "roles", frozenset({Role.OPERATOR})))

        token = await door.try_("root", RIGHT)

        assert " operator " in token.text

    async def test_unknown_wrong_and_deactivated_get_one_answer(self, door: Door) -> None:
        await door.knows("kate")
        await door.knows("gone", lambda user: setattr(user, "active", False))
        answers: list[UserError] = []

        for name, password in [
            ("kate", WRONG),
            ("nobody", RIGHT),
            ("no name at all \ud800\x00", RIGHT),
            ("gone", RIGHT),
        ]:
            with pytest.raises(WrongCredentials) as refused:
                await door.try_(name, password)
            answers.append(refused.value)

        assert len({(type(each), each.code, str(each)) for each in answers}) == 1

    @pytest.mark.parametrize("name", ["kate", "nobody", "no name at all"])
    async def test_a_password_is_verified_whoever_it_is(self, door: Door, name: str) -> None:
        await door.knows("kate")

        await door.fail(1, name)

        assert len(door.hasher.verified) == 1

    async def test_an_outdated_hash_is_made_anew(self, door: Door) -> None:
        kate = await door.knows("kate")
        door.hasher.generation = "2"

        await door.try_("kate", RIGHT)

        assert door.transactor.stored.users[kate.id].password_hash.value == f"2 {RIGHT}"
        assert len(door.transactor.stored.outbox) == 1  # their sign-up; nobody is told of a hash

    async def test_a_command_shows_neither_name_nor_password(self) -> None:
        shown = repr(SignIn("kate", Password.offered(RIGHT), "192.0.2.1"))

        assert "kate" not in shown
        assert RIGHT not in shown


class TestSignInLimits:
    async def test_a_name_that_failed_too_often_is_stopped_wherever_it_comes_from(
        self, door: Door
    ) -> None:
        await door.knows("kate")
        await door.fail(3, "kate", network="192.0.2.1")
        door.clock.move(seconds=60)

        with pytest.raises(TooManySignIns) as refused:
            await door.try_("kate", RIGHT, network="192.0.2.2")

        assert refused.value.retry_after_s == WINDOW_S - 60
        assert len(door.hasher.verified) == 3

    async def test_a_name_nobody_has_is_stopped_just_so(self, door: Door) -> None:
        await door.fail(3, "nobody")

        with pytest.raises(TooManySignIns):
            await door.try_("nobody")

    async def test_a_network_that_failed_too_often_is_stopped_for_every_name(
        self, door: Door
    ) -> None:
        await door.knows("kate")
        for number in range(5):
            await door.fail(1, f"name-{number}")

        with pytest.raises(TooManySignIns):
            await door.try_("kate", RIGHT)

    async def test_a_network_that_is_stopped_uses_up_nobodys_name(self, door: Door) -> None:
        await door.knows("kate")
        for number in range(5):
            await door.fail(1, f"name-{number}", network="198.51.100.7")
        for _ in range(10):
            with pytest.raises(TooManySignIns):
                await door.try_("kate", network="198.51.100.7")

        await door.try_("kate", RIGHT, network="192.0.2.1")

    async def test_what_is_no_name_counts_for_the_network(self, door: Door) -> None:
        await door.fail(5, "no name at all")

        with pytest.raises(TooManySignIns):
            await door.try_("no name at all")

    async def test_a_window_later_it_begins_anew(self, door: Door) -> None:
        await door.knows("kate")
        await door.fail(3)
        door.clock.move(seconds=WINDOW_S)

        await door.try_("kate", RIGHT)

    async def test_those_who_succeed_are_never_stopped(self, door: Door) -> None:
        await door.knows("kate")

        for _ in range(20):
            await door.try_("kate", RIGHT)

    async def test_success_does_not_wipe_out_what_failed(self, door: Door) -> None:
        await door.knows("kate")
        await door.fail(2)
        await door.try_("kate", RIGHT)
        await door.fail(1)

        with pytest.raises(TooManySignIns):
            await door.try_("kate", RIGHT)

    async def test_those_under_way_count(self, door: Door) -> None:
        await door.knows("kate")

        tries = await asyncio.gather(*(door.try_("kate") for _ in range(8)), return_exceptions=True)

        assert sum(isinstance(each, WrongCredentials) for each in tries) == 3
        assert sum(isinstance(each, TooManySignIns) for each in tries) == 5
