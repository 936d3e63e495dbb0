"""The answers to reads of an account; the newest ones are kept, encoded."""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from fastapi import Response

from accounts_service.application.ports import AccountHead
from accounts_service.application.queries import ReadAccount
from accounts_service.entrypoints.bodies import AccountBody
from chassis.web.conditional import is_known

MOST_KEPT: Final = 1_000
"""Answers; each has some 2,000 bytes, and 13,000 where the descriptions are the longest ones."""

# A client must not go on with the fields that an earlier version of this service sent.
_FORM: Final = hashlib.sha256(json.dumps(AccountBody.model_json_schema()).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class _Kept:
    tag: str
    body: bytes


class AccountAnswers:
    """Answers with accounts, and says 304 to clients that have the newest answer.

    Nothing is answered from memory unless the database has just said that it is the newest state.
    """

    def __init__(self, read: ReadAccount, *, most: int = MOST_KEPT) -> None:
        self._read = read
        self._most = most
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()

    async def answer(self, account: AccountHead, if_none_match: str | None) -> Response:
        """Answer with the account whose head was just read.

        :param if_none_match: the header field of the request
        """
        if is_known(_entity_tag(account), if_none_match):
            return Response(status_code=304, headers={"ETag": _entity_tag(account)})
        kept = self._kept.get(account.id)
        if kept is None or kept.tag != _entity_tag(account):
            kept = await self._build(account)
        self._kept[account.id] = kept
        self._kept.move_to_end(account.id)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return Response(kept.body, media_type="application/json", headers={"ETag": kept.tag})

    async def _build(self, account: AccountHead) -> _Kept:
        view = await self._read.whole(account)
        # By its own tag: it may be newer than the head.
        return _Kept(_entity_tag(view), AccountBody.of(view).model_dump_json().encode())


def _entity_tag(account: AccountHead) -> str:
    return f'"{account.tag}.{_FORM}"'
