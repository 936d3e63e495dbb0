"""The service over HTTP: sign up, sign in, and what users see of themselves."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from chassis.web.auth import OPERATOR, FetchKeys, Principal
from chassis.web.disconnects import unless_disconnected
from chassis.web.idempotency import IdempotentCommand
from chassis.web.problems import refusals
from users_service.application.ports import Network, PasswordHasher, UsersWork, Views
from users_service.application.sign_in import SignIn, SignInHandler
from users_service.application.sign_up import SignUpHandler, SignUpLimit
from users_service.domain.errors import InvalidValue, UserNotFound
from users_service.domain.user import Identity
from users_service.domain.values import (
    EMAIL_MAX_CHARS,
    NAME_MAX_CHARS,
    NAME_MIN_CHARS,
    PASSWORD_MAX_CHARS,
    PASSWORD_MIN_CHARS,
    Alias,
    EmailAddress,
    Password,
    Username,
)
from users_service.entrypoints.sign_in_log import SignInLog

TASKS_ON_A_PAGE: Final = 100
# Half of the time for which a new key is published before it signs. Readers have the other half.
_KEYS_CACHED: Final = "public, max-age=60"

T = TypeVar("T")


def _text(parse: Callable[[str], T]) -> PlainValidator:
    """Parse a field with the domain's parser.

    So one answer names every invalid field: missing ones, other types, and values that break a
    rule of the domain.
    """
    return PlainValidator(lambda value: _parsed(value, parse))


def _new_password(value: object, info: ValidationInfo) -> Password:
    """Parse a password, which is not the name or the address beside it."""
    known = [info.data[name].value for name in ("username", "email") if name in info.data]
    return _parsed(value, lambda text: Password.parse(text, known=known))


def _parsed(value: object, parse: Callable[[str], T]) -> T:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "a text")
    try:
        return parse(value)
    except InvalidValue as error:
        raise PydanticCustomError(error.code, str(error)) from None


_NAME_SCHEMA = {
    "type": "string",
    "minLength": NAME_MIN_CHARS,
    "maxLength": NAME_MAX_CHARS,
    "pattern": r"^[A-Za-z0-9.+_-]+$",
    "description": "Upper case is folded.",
    "examples": ["ada.lovelace"],
}
_ALIAS_SCHEMA = _NAME_SCHEMA | {"examples": ["ada"]}
_EMAIL_SCHEMA = {
    "type": "string",
    "format": "email",
    "maxLength": EMAIL_MAX_CHARS,
    "examples": ["ada@example.com"],
}
_PASSWORD_SCHEMA = {
    "type": "string",
    "format": "password",
    "minLength": PASSWORD_MIN_CHARS,
    "maxLength": PASSWORD_MAX_CHARS,
    "description": "None of the most common ones, and neither the username nor the address.",
    "examples": ["nine green umbrellas"],
}


class SignUpBody(BaseModel):
    username: Annotated[Username, _text(Username.parse), WithJsonSchema(_NAME_SCHEMA)]
    email: Annotated[EmailAddress, _text(EmailAddress.parse), WithJsonSchema(_EMAIL_SCHEMA)]
    # After the two, which it must differ from.
    password: Annotated[Password, PlainValidator(_new_password), WithJsonSchema(_PASSWORD_SCHEMA)]
    alias: Annotated[Alias, _text(Alias.parse), WithJsonSchema(_ALIAS_SCHEMA)] | None = None


class SignedUpBody(BaseModel):
    id: UUID
    username: str


class TokenBody(BaseModel):
    """An access token, as in OAuth 2 (RFC 6749, 5.1)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind of token, no secret
    expires_in: Annotated[int, Field(description="Seconds for which the token is valid.")]


class UserBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    username: str
    email: str
    alias: str | None
    roles: Annotated[list[str], BeforeValidator(sorted)]
    created_at: datetime


class TaskBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    created_at: datetime


class TasksBody(BaseModel):
    tasks: list[TaskBody]
    next: Annotated[UUID | None, Field(description="`before` of the next page; null on the last.")]


class KeySetBody(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]


def routes(
    *,
    sign_up: SignUpHandler,
    sign_up_limit: SignUpLimit,
    sign_in: SignInHandler,
    views: Views,
    hasher: PasswordHasher,
    published_keys: FetchKeys,
    once: Callable[..., Awaitable[IdempotentCommand[UsersWork]]],
    signed_in: Callable[..., Awaitable[Principal]],
    client_network: Callable[[Request], Network],
    sign_in_log: SignInLog,
) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/users",
        status_code=201,
        response_model=SignedUpBody,
        tags=["users"],
        summary="Sign up",
        responses=refusals(409, 429),
    )
    async def post_user(
        body: SignUpBody,
        once: Annotated[IdempotentCommand[UsersWork], Depends(once)],
        network: Annotated[Network, Depends(client_network)],
        request: Request,
    ) -> Response:
        async with sign_up_limit.one_from(network):
            password_hash = await unless_disconnected(request, hasher.hash(body.password))
        identity = Identity(body.username, body.email, password_hash, body.alias)

        def answer(user_id: UUID) -> Response:
            signed_up = SignedUpBody(id=user_id, username=body.username.value)
            location = {"Location": f"/users/{user_id}"}
            return JSONResponse(signed_up.model_dump(mode="json"), 201, location)

        return await once(lambda work: sign_up(work, identity), answer=answer)

    @router.post("/auth/token", tags=["sign-in"], summary="Sign in", responses=refusals(401, 429))
    async def post_token(
        form: Annotated[OAuth2PasswordRequestForm, Depends()],
        network: Annotated[Network, Depends(client_network)],
        request: Request,
        response: Response,
    ) -> TokenBody:
        """Sign in by username or e-mail address."""
        command = SignIn(form.username, Password.offered(form.password), network)
        verify = partial(unless_disconnected, request)
        token = await sign_in_log.following(command, sign_in(command, verify))
        response.headers["Cache-Control"] = "no-store"
        return TokenBody(access_token=token.text, expires_in=int(token.lifetime.total_seconds()))

    @router.get("/.well-known/jwks.json", tags=["sign-in"], summary="The keys that verify tokens")
    async def get_keys(response: Response) -> KeySetBody:
        """Return the keys that verify access tokens."""
        response.headers["Cache-Control"] = _KEYS_CACHED
        return KeySetBody.model_validate(await published_keys())

    @router.get("/users/me", tags=["users"], summary="You")
    async def get_me(who: Annotated[Principal, Depends(signed_in)]) -> UserBody:
        return UserBody.model_validate(await views.profile_of(who.id))

    @router.get("/users/me/tasks", tags=["users"], summary="Your tasks, newest first")
    async def get_my_tasks(
        who: Annotated[Principal, Depends(signed_in)],
        before: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=TASKS_ON_A_PAGE)] = TASKS_ON_A_PAGE,
    ) -> TasksBody:
        """Return your tasks, newest first."""
        page = await views.tasks_of(who.id, before=before, limit=limit)
        return TasksBody(
            tasks=[TaskBody.model_validate(each) for each in page.items], next=page.next
        )

    @router.get("/users/{user_id}", tags=["users"], summary="A user")
    async def get_user(user_id: UUID, who: Annotated[Principal, Depends(signed_in)]) -> UserBody:
        """Return a user to themselves or to an operator; others get 404."""
        if who.id != user_id and OPERATOR not in who.roles:
            raise UserNotFound
        return UserBody.model_validate(await views.profile_of(user_id))

    return router
