"""Signed access tokens, which anyone can verify with the published keys."""

from datetime import datetime, timedelta
from uuid import UUID

from joserfc import jwt

from chassis.correlation import new_id
from chassis.web.auth import SIGNING_ALGORITHM, TOKEN_TYPE, AccessToken, Principal
from users_service.adapters.signing_keys import SigningKeys
from users_service.application.ports import IssuedToken
from users_service.domain.user import Role


class SignedAccessTokens:
    def __init__(
        self, keys: SigningKeys, *, issuer: str, audience: str, lifetime: timedelta
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime

    def issue(self, user_id: UUID, roles: frozenset[Role], /, now: datetime) -> IssuedToken:
        key = self._keys.signing()
        token = AccessToken(
            id=new_id(),
            principal=Principal(user_id, frozenset(roles)),
            issued_at=now,
            lifetime=self._lifetime,
        )
        text = jwt.encode(
            {"alg": SIGNING_ALGORITHM, "typ": TOKEN_TYPE, "kid": key.kid},
            token.claims(issuer=self._issuer, audience=self._audience),
            key,
            algorithms=[SIGNING_ALGORITHM],
        )
        return IssuedToken(user_id, text, self._lifetime)
