"""Lines of the security log about signing in."""

import hmac
from typing import Final
from uuid import UUID

import structlog
from pydantic import SecretStr

from chassis.domain import DomainError
from chassis.telemetry import SECURITY
from users_service.application.sign_in import SignIn
from users_service.domain.errors import TooManySignIns

_log = structlog.get_logger(SECURITY)
_FINGERPRINT_BYTES: Final = 16


class SignInLog:
    """Names the client's network and the name by its keyed fingerprint, never the name itself.

    People type their password, or another's address, where the name belongs.
    """

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret.get_secret_value().encode()

    def succeeded(self, attempt: SignIn, user_id: UUID) -> None:
        _log.info("sign-in-succeeded", user_id=str(user_id), **self._line_of(attempt))

    def refused(self, attempt: SignIn, error: DomainError) -> None:
        if isinstance(error, TooManySignIns):
            _log.warning("sign-in-limited", **self._line_of(attempt))
        else:
            _log.warning("sign-in-refused", **self._line_of(attempt))

    def _line_of(self, attempt: SignIn) -> dict[str, str]:
        # As names are compared, so that one name has one fingerprint.
        name = attempt.name.strip().casefold().encode()
        fingerprint = hmac.digest(self._secret, b"security log " + name, "sha256")
        return {
            "network": attempt.network.name,
            "name_fingerprint": fingerprint[:_FINGERPRINT_BYTES].hex(),
        }
