"""What travels over HTTP, in and out."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from users_service.application.ports import IssuedToken, Profile
from users_service.application.queries import TaskPage
from users_service.domain.errors import InvalidValue
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

T = TypeVar("T")


def _text(parse: Callable[[str], T]) -> PlainValidator:
    """Parse a field as the domain does, so that one answer names every broken field.

    A field that is missing or no text is named beside one that breaks a rule of ours.
    """

    def validate(value: object) -> T:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "a text")
        try:
            return parse(value)
        except InvalidValue as error:
            raise PydanticCustomError(error.code, str(error)) from None

    return PlainValidator(validate)


_NAME_SCHEMA = {
    "type": "string",
    "minLength": NAME_MIN_CHARS,
    "maxLength": NAME_MAX_CHARS,
    "pattern": r"^[A-Za-z0-9.+_-]+$",
    "description": "Upper case is folded.",
}
_EMAIL_SCHEMA = {"type": "string", "format": "email", "maxLength": EMAIL_MAX_CHARS}
_PASSWORD_SCHEMA = {
    "type": "string",
    "format": "password",
    "minLength": PASSWORD_MIN_CHARS,
    "maxLength": PASSWORD_MAX_CHARS,
}


class SignUpBody(BaseModel):
    username: Annotated[Username, _text(Username.parse), WithJsonSchema(_NAME_SCHEMA)]
    email: Annotated[EmailAddress, _text(EmailAddress.parse), WithJsonSchema(_EMAIL_SCHEMA)]
    password: Annotated[Password, _text(Password.parse), WithJsonSchema(_PASSWORD_SCHEMA)]
    alias: Annotated[Alias, _text(Alias.parse), WithJsonSchema(_NAME_SCHEMA)] | None = None


class SignedUpBody(BaseModel):
    id: UUID
    username: str


class TokenBody(BaseModel):
    """An access token, as OAuth 2 answers with it (RFC 6749, 5.1)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind of token, and no secret
    expires_in: Annotated[int, Field(description="Seconds that the token is good for.")]

    @classmethod
    def of(cls, token: IssuedToken) -> "TokenBody":
        return cls(access_token=token.text, expires_in=int(token.lifetime.total_seconds()))


class UserBody(BaseModel):
    id: UUID
    username: str
    email: str
    alias: str | None
    roles: list[str]
    created_at: datetime

    @classmethod
    def of(cls, profile: Profile) -> "UserBody":
        return cls(
            id=profile.id,
            username=profile.username,
            email=profile.email,
            alias=profile.alias,
            roles=sorted(profile.roles),
            created_at=profile.created_at,
        )


class TaskBody(BaseModel):
    id: UUID
    name: str
    created_at: datetime


class TasksBody(BaseModel):
    tasks: list[TaskBody]
    next: Annotated[
        UUID | None, Field(description="Ask for the next page with it as `before`; null: no more.")
    ]

    @classmethod
    def of(cls, page: TaskPage) -> "TasksBody":
        tasks = [TaskBody(id=t.id, name=t.name, created_at=t.created_at) for t in page.tasks]
        return cls(tasks=tasks, next=page.next)


class KeySetBody(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]
