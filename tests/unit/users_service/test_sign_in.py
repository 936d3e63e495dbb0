import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from chassis.testing import Clock
from users_service.adapters.in_memory import (
    InMemoryKnownNetworks,
    InMemoryRecentAttempts,
    InMemoryTransactor,
    InMemoryViews,
    PlainHasher,
    ReadableTokens,
)
from users_service.application.ports import IssuedToken, Network, PerNetwork
from users_service.application.sign_in import SignIn, SignInHandler, SignInLimits
from users_service.domain.errors import TooManyHashes, TooManySignIns, UserError, WrongCredentials
from users_service.domain.user import Role, User
from users_service.domain.values import Password

from .people import NOW, a_user
from .ports_suite import store

RIGHT = "correct horse"
WRONG = "wrong horse"
WINDOW_S = 300.0


class Service:
    """The sign-in on fakes.

    Three attempts may fail for a name from one network, six from all, five from a network.
    """

    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.transactor = InMemoryTransactor(self.clock)
        self.hasher = PlainHasher()
        self.sign_in = SignInHandler(
            views=InMemoryViews(self.transactor),
            hasher=self.hasher,
            tokens=ReadableTokens(),
            attempts=InMemoryRecentAttempts(),
            known_networks=InMemoryKnownNetworks(kept=timedelta(days=30)),
            limits=SignInLimits(
                per_name=3,
                per_name_everywhere=6,
                per_network=PerNetwork(5, 500),
                at_once=PerNetwork(2, 4),
                window=timedelta(seconds=WINDOW_S),
            ),
            transact=self.transactor,
            now=self.clock,
        )

    async def has(self, username: str, change: Callable[[User], None] = lambda _: None) -> User:
        user = a_user(username, password_hash=await PlainHasher().hash(Password.parse(RIGHT)))
        change(user)
        await store(self.transactor, user)
        return user

    async def attempt(
        self,
        name: str = "kate",
        password: str = WRONG,
        network: str = "192.0.2.1",
        *,
        shared: bool = False,
    ) -> IssuedToken:
        come_from = Network(network, shared)
        return await self.sign_in(SignIn(name, Password.offered(password), come_from))

    async def gets_in(self, name: str = "kate", *, network: str) -> bool:
        """Return whether the right password is accepted, and not refused by a limit."""
        try:
            return bool(await self.attempt(name, RIGHT, network))
        except TooManySignIns:
            return False

    async def fail(self, times: int, name: str = "kate", network: str = "192.0.2.1") -> None:
        for _ in range(times):
            with pytest.raises(WrongCredentials):
                await self.attempt(name, network=network)


@pytest.fixture
def service() -> Service:
    return Service()


class TestSignIn:
    @pytest.mark.parametrize("name", ["kate", "KATE ", "kate@example.com", " Kate@Example.com"])
    async def test_username_and_email_address_are_both_accepted(
        self, service: Service, name: str
    ) -> None:
        kate = await service.has("kate")

        token = await service.attempt(name, RIGHT)

        assert token.text.startswith(str(kate.id))

    async def test_the_token_has_the_users_roles(self, service: Service) -> None:
        await service.has("root", lambda user: setattr(user, "roles", frozenset({Role.OPERATOR})))

        token = await service.attempt("root", RIGHT)

        assert " operator " in token.text

    async def test_unknown_name_wrong_password_and_deactivated_user_get_one_answer(
        self, service: Service
    ) -> None:
        await service.has("kate")
        await service.has("gone", lambda user: setattr(user, "active", False))
        answers: list[UserError] = []

        for name, password in [
            ("kate", WRONG),
            ("unknown", RIGHT),
            ("no name at all \ud800\x00", RIGHT),
            ("gone", RIGHT),
        ]:
            with pytest.raises(WrongCredentials) as refused:
                await service.attempt(name, password)
            answers.append(refused.value)

        assert len({(type(each), each.code, str(each)) for each in answers}) == 1

    @pytest.mark.parametrize("name", ["kate", "unknown", "no name at all"])
    async def test_a_password_is_verified_for_any_name(self, service: Service, name: str) -> None:
        await service.has("kate")

        await service.fail(1, name)

        assert len(service.hasher.verified) == 1

    async def test_an_outdated_hash_is_replaced(self, service: Service) -> None:
        kate = await service.has("kate")
        service.hasher.generation = "2"

        await service.attempt("kate", RIGHT)

        stored = service.transactor.stored
        assert stored.users[kate.id].identity.password_hash.value == f"2 {RIGHT}"
        assert len(stored.outbox) == 1  # the sign-up; a new hash is not published

    async def test_the_repr_of_a_command_has_neither_name_nor_password(self) -> None:
        shown = repr(SignIn("kate", Password.offered(RIGHT), Network("192.0.2.1")))

        assert "kate" not in shown
        assert RIGHT not in shown


class TestSignInLimits:
    async def test_a_name_over_its_limit_in_a_network_is_refused_there_and_nowhere_else(
        self, service: Service
    ) -> None:
        await service.has("kate")
        await service.fail(3, "kate", network="192.0.2.1")
        service.clock.advance(timedelta(seconds=60))

        with pytest.raises(TooManySignIns) as refused:
            await service.attempt("kate", RIGHT, network="192.0.2.1")

        assert refused.value.retry_after_s == WINDOW_S - 60
        assert len(service.hasher.verified) == 3
        assert await service.gets_in(network="192.0.2.2")

    async def test_a_username_and_its_email_address_count_as_one(self, service: Service) -> None:
        await service.has("kate")
        await service.fail(2, "kate")
        await service.fail(1, "kate@example.com")

        for name in ("kate", "kate@example.com"):
            with pytest.raises(TooManySignIns):
                await service.attempt(name, RIGHT)

    async def test_a_name_over_its_limit_of_all_networks_is_refused_in_another(
        self, service: Service
    ) -> None:
        await service.has("kate")
        await fail_from_everywhere(service)

        with pytest.raises(TooManySignIns) as refused:
            await service.attempt("kate", RIGHT, network="192.0.2.200")

        assert refused.value.retry_after_s == WINDOW_S
        assert len(service.hasher.verified) == 6

    async def test_but_not_in_one_from_which_it_signed_in_lately(self, service: Service) -> None:
        await service.has("kate")
        await service.attempt("kate", RIGHT, network="192.0.2.200")
        service.clock.advance(timedelta(days=29))
        await fail_from_everywhere(service)

        for _ in range(10):
            assert await service.gets_in("kate@example.com", network="192.0.2.200")

    async def test_there_its_own_failures_still_count(self, service: Service) -> None:
        await service.has("kate")
        await service.attempt("kate", RIGHT, network="192.0.2.200")
        await fail_from_everywhere(service)
        await service.fail(3, "kate", network="192.0.2.200")

        with pytest.raises(TooManySignIns):
            await service.attempt("kate", RIGHT, network="192.0.2.200")

    async def test_nor_is_another_name_known_there(self, service: Service) -> None:
        await service.has("kate")
        await service.has("joe")
        await service.attempt("joe", RIGHT, network="192.0.2.200")
        await fail_from_everywhere(service)

        with pytest.raises(TooManySignIns):
            await service.attempt("kate", RIGHT, network="192.0.2.200")

    async def test_a_network_is_forgotten_after_a_while(self, service: Service) -> None:
        await service.has("kate")
        await service.attempt("kate", RIGHT, network="192.0.2.200")
        service.clock.advance(timedelta(days=30))
        await fail_from_everywhere(service)

        with pytest.raises(TooManySignIns):
            await service.attempt("kate", RIGHT, network="192.0.2.200")

    async def test_a_network_that_many_share_has_a_limit_of_its_own(self, service: Service) -> None:
        for number in range(20):
            with pytest.raises(WrongCredentials):
                await service.attempt(f"name-{number}", shared=True)

    async def test_an_unknown_name_over_its_limit_is_refused_too(self, service: Service) -> None:
        await service.fail(3, "unknown")

        with pytest.raises(TooManySignIns):
            await service.attempt("unknown")

    async def test_a_network_over_its_limit_is_refused_for_every_name(
        self, service: Service
    ) -> None:
        await service.has("kate")
        for number in range(5):
            await service.fail(1, f"name-{number}")

        with pytest.raises(TooManySignIns):
            await service.attempt("kate", RIGHT)

    async def test_a_refused_network_uses_up_no_attempts_of_a_name(self, service: Service) -> None:
        await service.has("kate")
        for number in range(5):
            await service.fail(1, f"name-{number}", network="198.51.100.7")
        for _ in range(10):
            with pytest.raises(TooManySignIns):
                await service.attempt("kate", network="198.51.100.7")

        await service.attempt("kate", RIGHT, network="192.0.2.1")

    async def test_an_invalid_name_counts_for_the_network(self, service: Service) -> None:
        await service.fail(5, "no name at all")

        with pytest.raises(TooManySignIns):
            await service.attempt("no name at all")

    async def test_a_new_window_starts_at_zero(self, service: Service) -> None:
        await service.has("kate")
        await service.fail(3)
        service.clock.advance(timedelta(seconds=WINDOW_S))

        await service.attempt("kate", RIGHT)

    async def test_successful_sign_ins_are_never_limited(self, service: Service) -> None:
        await service.has("kate")

        for _ in range(20):
            await service.attempt("kate", RIGHT)

    async def test_a_success_does_not_reset_the_failures(self, service: Service) -> None:
        await service.has("kate")
        await service.fail(2)
        await service.attempt("kate", RIGHT)
        await service.fail(1)

        with pytest.raises(TooManySignIns):
            await service.attempt("kate", RIGHT)

    async def test_unfinished_attempts_count(self, service: Service) -> None:
        await service.has("kate")

        outcomes = await asyncio.gather(
            *(service.attempt("kate") for _ in range(8)), return_exceptions=True
        )

        assert sum(isinstance(each, WrongCredentials) for each in outcomes) == 3
        assert sum(isinstance(each, TooManySignIns) for each in outcomes) == 5


async def fail_from_everywhere(service: Service) -> None:
    """Use up the attempts of a name, one from each network."""
    for number in range(6):
        await service.fail(1, "kate", network=f"192.0.2.{number}")


class TestSignInsAtOnce:
    async def test_of_one_network_have_a_part_of_the_places_though_their_passwords_are_right(
        self, service: Service
    ) -> None:
        await service.has("kate")
        may_verify = asyncio.Event()

        async def once_let(verified: Awaitable[bool]) -> bool:
            await may_verify.wait()
            return await verified

        def sign_in(network: str, *, shared: bool = False) -> asyncio.Task[IssuedToken]:
            right = SignIn("kate", Password.offered(RIGHT), Network(network, shared))
            return asyncio.create_task(service.sign_in(right, once_let))

        waiting = [sign_in("192.0.2.1") for _ in range(2)]
        one_more = sign_in("192.0.2.1")
        waiting += [sign_in("192.0.2.2")]
        await asyncio.sleep(0)

        assert [one_more.done(), *(each.done() for each in waiting)] == [True, False, False, False]
        with pytest.raises(TooManyHashes):
            one_more.result()
        may_verify.set()
        assert len(await asyncio.gather(*waiting)) == 3
        assert (await service.attempt("kate", RIGHT)).text


class TestWhenTooManyPasswordsAreHashed:
    async def test_a_sign_in_is_refused_and_does_not_count(self, service: Service) -> None:
        await service.has("kate")
        verify, service.hasher.verify = service.hasher.verify, refuse  # type: ignore[method-assign]
        for _ in range(5):
            with pytest.raises(TooManyHashes):
                await service.attempt(password=RIGHT)
        service.hasher.verify = verify  # type: ignore[method-assign]

        assert (await service.attempt(password=RIGHT)).text

    async def test_a_hash_that_is_outdated_is_replaced_at_a_later_sign_in(
        self, service: Service
    ) -> None:
        await service.has("kate")
        service.hasher.generation = "2"
        service.hasher.hash = refuse  # type: ignore[method-assign]

        assert (await service.attempt(password=RIGHT)).text


async def refuse(*_: object) -> Any:
    raise TooManyHashes
