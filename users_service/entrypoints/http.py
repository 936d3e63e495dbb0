"""The service over HTTP: sign up, sign in, and what someone may see of themselves."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm

from chassis.web import idempotency
from chassis.web.auth import OPERATOR, FetchKeys, Principal
from chassis.web.idempotency import IdempotentCommand
from users_service.application.ports import PasswordHasher, UsersWork
from users_service.application.queries import ProfileOf, TasksOf
from users_service.application.sign_in import SignIn, SignInHandler
from users_service.application.sign_up import SignUp, SignUpHandler
from users_service.domain.errors import UserNotFound
from users_service.domain.values import Password
from users_service.entrypoints.bodies import (
    KeySetBody,
    SignedUpBody,
    SignUpBody,
    TasksBody,
    TokenBody,
    UserBody,
)

TASKS_ON_A_PAGE: Final = 100
# Half of the time that a new key is published before it signs: the other half is the readers'.
_KEYS_CACHED: Final = "public, max-age=60"


class CommandWork(UsersWork, idempotency.Work, Protocol):
    """A unit of work for a command that may come twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    sign_up: SignUpHandler
    sign_in: SignInHandler
    profile_of: ProfileOf
    tasks_of: TasksOf


def routes(
    use_cases: UseCases,
    *,
    hasher: PasswordHasher,
    published_keys: FetchKeys,
    once: Callable[..., Awaitable[IdempotentCommand[CommandWork]]],
    signed_in: Callable[..., Awaitable[Principal]],
    client_network: Callable[[Request], str],
) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/users",
        status_code=201,
        response_model=SignedUpBody,
        tags=["users"],
        summary="Sign up",
    )
    async def post_user(
        body: SignUpBody, once: Annotated[IdempotentCommand[CommandWork], Depends(once)]
    ) -> Response:
        password_hash = await hasher.hash(body.password)
        command = SignUp(body.username, body.email, password_hash, body.alias)

        def answer(user_id: UUID) -> Response:
            signed_up = SignedUpBody(id=user_id, username=body.username.value)
            location = {"Location": f"/users/{user_id}"}
            return JSONResponse(signed_up.model_dump(mode="json"), 201, location)

        return await once(lambda work: use_cases.sign_up(work, command), answer=answer)

    @router.post("/auth/token", tags=["sign-in"], summary="Sign in")
    async def post_token(
        form: Annotated[OAuth2PasswordRequestForm, Depends()],
        network: Annotated[str, Depends(client_network)],
        response: Response,
    ) -> TokenBody:
        """Sign in by username or e-mail address."""
        token = await use_cases.sign_in(
            SignIn(form.username, Password.offered(form.password), network)
        )
        response.headers["Cache-Control"] = "no-store"
        return TokenBody.of(token)

    @router.get("/.well-known/jwks.json", tags=["sign-in"], summary="The keys that verify tokens")
    async def get_keys(response: Response) -> KeySetBody:
        """Return the keys that access tokens are verified with."""
        response.headers["Cache-Control"] = _KEYS_CACHED
        return KeySetBody.model_validate(await published_keys())

    @router.get("/users/me", tags=["users"], summary="You")
    async def get_me(who: Annotated[Principal, Depends(signed_in)]) -> UserBody:
        return UserBody.of(await use_cases.profile_of(who.id))

    @router.get("/users/me/tasks", tags=["users"], summary="Your tasks, newest first")
    async def get_my_tasks(
        who: Annotated[Principal, Depends(signed_in)],
        before: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=TASKS_ON_A_PAGE)] = TASKS_ON_A_PAGE,
    ) -> TasksBody:
        """Return your tasks, newest first."""
        return TasksBody.of(await use_cases.tasks_of(who.id, before=before, limit=limit))

    @router.get("/users/{user_id}", tags=["users"], summary="A user")
    async def get_user(user_id: UUID, who: Annotated[Principal, Depends(signed_in)]) -> UserBody:
        """Return a user, to themselves or to an operator; for others there is none."""
        if who.id != user_id and OPERATOR not in who.roles:
            raise UserNotFound
        return UserBody.of(await use_cases.profile_of(user_id))

    return router
