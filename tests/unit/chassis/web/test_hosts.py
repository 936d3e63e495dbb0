import pytest
from fastapi import APIRouter, Depends

from chassis.web.hosts import only_at
from tests.unit.chassis.conftest import Serve


def routes() -> APIRouter:
    router = APIRouter(dependencies=[Depends(only_at(["127.0.0.1", "localhost", "::1"]))])

    @router.post("/toys")
    async def post_toy() -> str:
        return "made"

    return router


class TestAHost:
    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:80", "127.0.0.1:28105", "[::1]", "[::1]:28105"]
    )
    async def test_in_the_list_is_served_with_any_port(self, serve: Serve, host: str) -> None:
        async with serve(routes()) as client:
            assert (await client.post("/toys", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[", "0x7f.1"],
    )
    async def test_not_in_the_list_is_refused(self, serve: Serve, host: str) -> None:
        async with serve(routes()) as client:
            answer = await client.post("/toys", headers={"Host": host})

        assert (answer.status_code, answer.json()["code"]) == (403, "foreign-host")


class TestAnOrigin:
    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://localhost:1", "https://localhost:28105"]
    )
    async def test_of_another_page_is_refused(self, serve: Serve, origin: str) -> None:
        sent = {"Host": "localhost:28105", "Origin": origin}
        async with serve(routes()) as client:
            answer = await client.post("/toys", headers=sent)

        assert (answer.status_code, answer.json()["code"]) == (403, "foreign-origin")

    async def test_of_its_own_page_is_served(self, serve: Serve) -> None:
        sent = {"Host": "localhost:28105", "Origin": "http://localhost:28105"}
        async with serve(routes()) as client:
            assert (await client.post("/toys", headers=sent)).status_code == 200
