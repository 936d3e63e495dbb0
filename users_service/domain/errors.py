"""The errors of the users service.

UserError
├── InvalidValue
│   ├── InvalidUsername
│   ├── InvalidAlias
│   ├── InvalidEmail
│   ├── InvalidPassword
│   │   ├── PasswordIsCommon
│   │   └── PasswordIsKnown
│   └── InvalidTaskName
├── UsernameIsTaken
├── EmailIsTaken
├── UserNotFound
├── WrongCredentials
├── TooManySignIns
├── TooManySignUps
└── TooManyHashes
"""

from chassis.domain import DomainError, Kind


class UserError(DomainError):
    """A rule of the users service is broken."""


class InvalidValue(UserError):
    """A text in the wrong form; the message describes the right form."""

    kind, code = Kind.INVALID, "invalid-value"


class InvalidUsername(InvalidValue):
    code = "invalid-username"


class InvalidAlias(InvalidValue):
    code = "invalid-alias"


class InvalidEmail(InvalidValue):
    code = "invalid-email"


class InvalidPassword(InvalidValue):
    code = "invalid-password"


class PasswordIsCommon(InvalidPassword):
    """One of the passwords that are guessed first."""

    code = "password-is-common"


class PasswordIsKnown(InvalidPassword):
    """The user's own name or address, which others know."""

    code = "password-is-known"


class InvalidTaskName(InvalidValue):
    code = "invalid-task-name"


class UsernameIsTaken(UserError):
    kind, code = Kind.CONFLICT, "username-is-taken"

    def __init__(self) -> None:
        super().__init__("someone else has this username")


class EmailIsTaken(UserError):
    kind, code = Kind.CONFLICT, "email-is-taken"

    def __init__(self) -> None:
        super().__init__("someone else has this e-mail address")


class UserNotFound(UserError):
    kind, code = Kind.NOT_FOUND, "user-not-found"

    def __init__(self) -> None:
        super().__init__("there is no such user")


class WrongCredentials(UserError):
    """Unknown name, wrong password or deactivated user; the error does not reveal which."""

    kind, code = Kind.UNAUTHENTICATED, "wrong-credentials"

    def __init__(self) -> None:
        super().__init__("the name or the password is wrong")


class TooManySignIns(UserError):
    """Too many failed for this name or from this network; allowed after ``retry_after_s``."""

    kind, code = Kind.TOO_MANY, "too-many-sign-ins"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many sign-ins failed; wait before the next")
        self.retry_after_s = retry_after_s


class TooManySignUps(UserError):
    """Too many signed up, or tried to, from this network; allowed after ``retry_after_s``."""

    kind, code = Kind.TOO_MANY, "too-many-sign-ups"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many people signed up from this network; wait before the next")
        self.retry_after_s = retry_after_s


class TooManyHashes(UserError):
    """So many passwords are being hashed that another one would wait for long."""

    kind, code = Kind.UNAVAILABLE, "too-many-hashes"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__("too many people sign up or sign in at this moment; try again shortly")
