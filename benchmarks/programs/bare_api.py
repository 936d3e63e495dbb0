"""The floor of HTTP: plain FastAPI routes that run our statements with bare asyncpg.

``python -m benchmarks.programs.bare_api PORT``. Bodies are pydantic models, tokens are verified by
the same library, and uvicorn runs with our settings; there is nothing else.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
import orjson
import uvicorn
import uvloop
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from joserfc import jwt
from joserfc.jwk import KeySet
from pydantic import BaseModel
from uuid_utils.compat import uuid7

KEYS: Final = KeySet.import_key_set(orjson.loads(os.environ["KEYS"]))
CLAIMS: Final = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": "users"},
    aud={"essential": True, "value": "onboarding"},
    exp={"essential": True},
)
INSERT_USER: Final = """
    INSERT INTO users (id, username, email, password_hash, alias, active, roles, created_at,
        version, sequence)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[],
        $7::text[], $8::timestamptz[], $9::integer[], $10::bigint[])
"""
INSERT_OUTBOX: Final = """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload, headers,
        created_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[],
        $7::jsonb[], $8::timestamptz[])
"""
MARK: Final = """
    SELECT pg_current_xact_id_if_assigned()::text, pg_stat_get_bgwriter_stat_reset_time()::text
"""
READ_ACCOUNT: Final = """
    SELECT accounts.id, accounts.user_id, accounts.currency, accounts.state, accounts.balance,
        accounts.opened_at, latest.transaction_id, latest.position, latest.kind, latest.delta,
        latest.balance_after, latest.description, latest.occurred_at
    FROM accounts JOIN LATERAL (
        SELECT * FROM ledger_entries WHERE account_id = accounts.id
        ORDER BY position DESC LIMIT $1
    ) AS latest ON true
    WHERE accounts.kind = $2 AND accounts.user_id = $3
    ORDER BY latest.position DESC
"""


class SignUpBody(BaseModel):
    username: str
    email: str
    password: str
    alias: str | None = None


class SignedUpBody(BaseModel):
    id: UUID
    username: str


class TransactionBody(BaseModel):
    id: UUID
    position: int
    kind: str
    delta: str
    balance_after: str
    description: str
    occurred_at: datetime


class AccountBody(BaseModel):
    id: UUID
    user_id: UUID
    currency: str
    state: str
    balance: str
    opened_at: datetime
    transactions: list[TransactionBody]


@asynccontextmanager
async def pools(app: FastAPI) -> AsyncIterator[None]:
    users, accounts = os.environ["USERS_URL"], os.environ["ACCOUNTS_URL"]
    async with (
        asyncpg.create_pool(users, min_size=10, max_size=10) as app.state.users,
        asyncpg.create_pool(accounts, min_size=10, max_size=10) as app.state.accounts,
    ):
        yield


app = FastAPI(lifespan=pools, openapi_url=None)


async def signed_in(
    token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))],
) -> tuple[UUID, list[str]]:
    decoded = jwt.decode(token, KEYS, algorithms=["Ed25519"])
    CLAIMS.validate(decoded.claims)
    return UUID(decoded.claims["sub"]), decoded.claims["roles"]


SignedIn = Annotated[tuple[UUID, list[str]], Depends(signed_in)]


@app.post("/users", status_code=201)
async def post_user(body: SignUpBody) -> SignedUpBody:
    id_, event_id, now = uuid7(), uuid7(), datetime.now(UTC)
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/users",
        "type": "users.user-signed-up.v1",
        "subject": id_,
        "time": now,
        "datacontenttype": "application/json",
        "dataschema": "urn:onboarding:schema:users.user-signed-up.v1",
        "sequence": "0000000001",
        "correlationid": event_id,
        "data": {"user_id": id_, "username": body.username},
    }
    headers = {"type": "users.user-signed-up.v1", "id": event_id, "subject": id_}
    user = (id_, body.username, body.email, "x" * 97, body.alias, True, "", now, 1, 1)
    row = (
        event_id,
        "users.user",
        str(id_),
        "users.user-signed-up.v1",
        1,
        orjson.dumps(envelope),
        orjson.dumps(headers).decode(),
        now,
    )
    async with app.state.users.acquire() as connection, connection.transaction():
        await connection.execute(INSERT_USER, *([each] for each in user))
        await connection.execute(INSERT_OUTBOX, *([each] for each in row))
        await connection.fetchrow(MARK)
    return SignedUpBody(id=id_, username=body.username)


def _decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


@app.get("/users/{user_id}/account")
async def get_account(user_id: UUID, who: SignedIn) -> AccountBody:
    rows: list[Any] = await app.state.accounts.fetch(READ_ACCOUNT, 10, "personal", user_id)
    if not rows or (who[0] != user_id and "operator" not in who[1]):
        raise HTTPException(404)
    account = rows[0]
    transactions = [
        TransactionBody(
            id=row["transaction_id"],
            position=row["position"],
            kind=row["kind"],
            delta=_decimal(row["delta"]),
            balance_after=_decimal(row["balance_after"]),
            description=row["description"],
            occurred_at=row["occurred_at"],
        )
        for row in rows
    ]
    return AccountBody(
        id=account["id"],
        user_id=account["user_id"],
        currency=account["currency"],
        state=account["state"],
        balance=_decimal(account["balance"]),
        opened_at=account["opened_at"],
        transactions=transactions,
    )


@app.get("/users/{user_id}")
async def get_user(user_id: UUID, who: SignedIn) -> None:
    if who[0] != user_id and "operator" not in who[1]:
        raise HTTPException(404)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve([listener]))
