import ssl
from typing import Any

import httpx

from gateway.openapi import ApiDocument
from gateway.routes import PUBLIC_ROUTES
from gateway.upstream import Upstream
from gateway.watch import ServiceWatch
from services import FORWARDED

from .toys import Toy, gateway, serving, settings, until_async


def document(title: str) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "paths": {"/users/me": {"get": {"summary": title}}},
        "components": {},
    }


async def troubles(client: httpx.AsyncClient) -> dict[str, str]:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    reasons: dict[str, str] = response.json()["troubles"]
    return reasons


class TestReadiness:
    async def test_is_the_gateways_own_and_shows_which_services_are_not_ready(
        self, users: Toy, users_url: str
    ) -> None:
        users.ready = False
        async with (
            serving(Toy(document=document("one"))) as audit_url,
            gateway(
                watching=True, operators=True, users_url=users_url, audit_url=audit_url
            ) as client,
        ):

            async def all_checked() -> bool:
                return "not checked yet" not in (await troubles(client)).values()

            await until_async(all_checked)
            reasons = await troubles(client)

        others = {service.name for service in FORWARDED} - {"users", "audit"}
        assert reasons == {"users": "not ready", **dict.fromkeys(others, "cannot be reached")}


class TestTheMergedDocument:
    async def test_has_the_documents_of_the_services_and_names_those_missing(
        self, users: Toy, users_url: str
    ) -> None:
        users.document = document("Look at yourself")
        async with gateway(watching=True, users_url=users_url) as client:

            async def learned() -> bool:
                return "/users/me" in (await client.get("/openapi.json")).json()["paths"]

            await until_async(learned)
            merged = (await client.get("/openapi.json")).json()

        assert merged["paths"]["/users/me"]["get"]["summary"] == "Look at yourself"
        assert "users" not in merged["x-missing-services"]
        assert "accounts" in merged["x-missing-services"]
        assert merged["info"]["title"] == "Onboarding"

    async def test_is_shown_on_a_page_that_loads_nothing_from_elsewhere(
        self, client: httpx.AsyncClient
    ) -> None:
        page = (await client.get("/docs")).text

        assert "/openapi.json" in page
        assert "https://" not in page


class TestAWatch:
    async def test_reads_the_document_of_a_service_that_comes_back(self) -> None:
        async with Watched() as it:
            await it.check()
            it.toy.ready, it.toy.document = False, document("two")
            await it.check()
            it.toy.ready = True
            await it.check()

        assert it.summary() == "two"

    async def test_reads_it_again_after_a_minute_though_nothing_happened(self) -> None:
        async with Watched() as it:
            await it.check()
            it.toy.document = document("two")
            await it.check()
            before = it.summary()
            it.now += 60
            await it.check()

        assert (before, it.summary()) == ("one", "two")

    async def test_keeps_the_last_document_when_the_next_is_not_valid(self) -> None:
        async with Watched() as it:
            await it.check()
            for no_document in (None, ["a list"], {"paths": {"/users/me": "what?"}}):
                it.toy.document = no_document
                it.now += 60
                await it.check()

        assert it.summary() == "one"
        assert it.watch.trouble() is None


class Watched:
    """A watch over one toy; the test calls ``check`` and sets the clock."""

    def __init__(self) -> None:
        self.toy = Toy(document=document("one"))
        self.now = 1000.0
        self.api = ApiDocument(title="t", description="d", version="1", routes=PUBLIC_ROUTES)
        self._serving = serving(self.toy)

    async def __aenter__(self) -> "Watched":
        url = await self._serving.__aenter__()
        self._upstream = Upstream("users", url, settings(), ssl.create_default_context())
        self.watch = ServiceWatch(self._upstream, [self.api], monotonic=lambda: self.now)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._upstream.aclose()
        await self._serving.__aexit__(*error)

    async def check(self) -> None:
        await self.watch.check()

    def summary(self) -> str:
        summary: str = self.api.merged()["paths"]["/users/me"]["get"]["summary"]
        return summary
