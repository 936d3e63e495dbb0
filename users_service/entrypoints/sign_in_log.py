"""Lines of the security log about signing in."""

import hmac
from collections.abc import Awaitable
from typing import Final

import structlog
from pydantic import SecretStr

from chassis.telemetry import SECURITY
from users_service.application.ports import IssuedToken
from users_service.application.sign_in import SignIn
from users_service.domain.errors import TooManySignIns, WrongCredentials

_log = structlog.get_logger(SECURITY)
_FINGERPRINT_BYTES: Final = 16


class SignInLog:
    """Names the client's network and the name by its keyed fingerprint, never the name itself.

    People type their password, or another's address, where the name belongs.
    """

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret.get_secret_value().encode()

    async def following(self, attempt: SignIn, signing_in: Awaitable[IssuedToken]) -> IssuedToken:
        """Return what the attempt leads to, or raise it, and write a line about it."""
        line = self._line_of(attempt)
        try:
            token = await signing_in
        except TooManySignIns:
            _log.warning("sign-in-limited", **line)
            raise
        except WrongCredentials:
            _log.warning("sign-in-refused", **line)
            raise
        _log.info("sign-in-succeeded", user_id=str(token.user_id), **line)
        return token

    def _line_of(self, attempt: SignIn) -> dict[str, str]:
        # As names are compared, so that one name has one fingerprint.
        name = attempt.name.strip().casefold().encode()
        fingerprint = hmac.digest(self._secret, b"security log " + name, "sha256")
        return {
            "network": attempt.network.name,
            "name_fingerprint": fingerprint[:_FINGERPRINT_BYTES].hex(),
        }
