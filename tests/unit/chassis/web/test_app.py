import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY

from chassis.correlation import current_correlation
from chassis.settings import Role
from chassis.web.health import Health
from tests.unit.chassis.conftest import Logged, Serve


def toys() -> APIRouter:
    router = APIRouter(prefix="/shop")

    @router.get("/toys/{number}")
    async def get_toy(number: int) -> str:
        return current_correlation().correlation_id

    @router.get("/broken")
    async def get_broken() -> None:
        raise RuntimeError

    return router


class TestIds:
    @pytest.mark.parametrize("header", ["X-Correlation-ID", "X-Request-ID"])
    async def test_the_clients_id_reaches_the_route_and_the_response(
        self, serve: Serve, header: str
    ) -> None:
        async with serve(toys()) as client:
            answer = await client.get("/shop/toys/1", headers={header: "order-17"})

        assert answer.json() == "order-17"
        assert answer.headers["x-correlation-id"] == "order-17"
        assert answer.headers["x-request-id"] == "order-17"

    async def test_a_request_without_an_id_gets_one(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.get("/shop/toys/1")

        assert answer.headers["x-correlation-id"] == answer.json()

    async def test_an_unacceptable_id_is_replaced(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.get("/shop/toys/1", headers={"X-Request-ID": "x" * 129})

        assert answer.json() != "x" * 129
        assert answer.headers["x-request-id"] == answer.json()

    async def test_at_the_edge_a_client_has_its_id_beside_ours(
        self, serve: Serve, logged: Logged
    ) -> None:
        async with serve(toys(), edge=True) as client:
            sent = await client.get("/shop/toys/1", headers={"X-Correlation-ID": "order-17"})
            none = await client.get("/shop/toys/1", headers={"X-Correlation-ID": "x" * 129})

        assert sent.headers["x-client-correlation-id"] == "order-17"
        assert sent.json() == sent.headers["x-correlation-id"] != "order-17"
        assert "x-client-correlation-id" not in none.headers
        assert [line.get("client_correlation_id") for line in logged] == ["order-17", None]

    async def test_behind_it_a_service_knows_what_the_client_calls_its_request(
        self, serve: Serve
    ) -> None:
        router = APIRouter()

        @router.get("/called")
        async def get_called() -> str | None:
            return current_correlation().client_id

        async with serve(router) as client:
            sent = await client.get("/called", headers={"X-Client-Correlation-ID": "order-17"})
            none = await client.get("/called", headers={"X-Client-Correlation-ID": "a b"})
        async with serve(router, edge=True) as client:
            forged = await client.get("/called", headers={"X-Client-Correlation-ID": "order-17"})

        assert [each.json() for each in (sent, none, forged)] == ["order-17", None, None]

    @pytest.mark.parametrize("path", ["/nowhere", "/shop/toys/none", "/shop/broken"])
    async def test_refusals_and_failures_have_it_too(self, serve: Serve, path: str) -> None:
        async with serve(toys()) as client:
            answer = await client.get(path, headers={"X-Request-ID": "order-17"})

        assert answer.headers["x-request-id"] == "order-17"
        assert answer.json()["correlation_id"] == "order-17"


class TestLogAndMetrics:
    async def test_a_request_is_one_log_line_with_its_route_and_without_its_query(
        self, serve: Serve, logged: Logged
    ) -> None:
        async with serve(toys()) as client:
            await client.get("/shop/toys/1?email=ann@example.org")

        (line,) = logged
        assert line.pop("duration_ms") >= 0
        assert line == {
            "event": "request",
            "log_level": "info",
            "method": "GET",
            "route": "/shop/toys/{number}",
            "status": 200,
        }

    @pytest.mark.parametrize(
        ("path", "route", "status"),
        [
            ("/shop/toys/1", "/shop/toys/{number}", "200"),
            ("/nowhere/17", "unmatched", "404"),
            ("/shop/broken", "/shop/broken", "500"),
        ],
    )
    async def test_a_request_is_counted_by_its_route(
        self, serve: Serve, path: str, route: str, status: str
    ) -> None:
        labels = {"method": "GET", "route": route, "status": status}
        before = REGISTRY.get_sample_value("http_requests_total", labels) or 0

        async with serve(toys()) as client:
            await client.get(path)

        assert REGISTRY.get_sample_value("http_requests_total", labels) == before + 1

    async def test_a_method_that_a_route_does_not_have_is_counted_without_the_route(
        self, serve: Serve, logged: Logged
    ) -> None:
        async with serve(toys()) as client:
            answer = await client.delete("/shop/toys/1")

        assert answer.status_code == 405
        assert [line["route"] for line in logged] == ["unmatched"]

    async def test_an_unknown_method_makes_no_metric_of_its_own(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            await client.request("BREW17", "/shop/toys/1")

            assert "BREW17" not in (await client.get("/metrics")).text

    async def test_the_metrics_are_served(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            await client.get("/shop/toys/1")
            answer = await client.get("/metrics")

        assert 'http_requests_total{method="GET",route="/shop/toys/{number}"' in answer.text


class TestTheHead:
    async def test_of_a_streamed_answer_is_sent_without_making_the_body(
        self, serve: Serve, logged: Logged
    ) -> None:
        made: list[int] = []

        async def lines() -> AsyncIterator[bytes]:
            for number in range(100):
                made.append(number)
                yield b"toy\n"

        router = APIRouter()

        @router.get("/toys.csv")
        async def get_toys() -> Response:
            return StreamingResponse(lines(), media_type="text/csv")

        async with serve(router) as client:
            answer = await client.head("/toys.csv")

        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert made == [0]
        assert [(line["event"], line["status"]) for line in logged] == [("request", 200)]


class TestRoles:
    async def test_without_the_role_only_health_and_metrics_are_served(self, serve: Serve) -> None:
        async with serve(toys(), roles=frozenset({Role.RELAY})) as client:
            paths = ["/shop/toys/1", "/health/live", "/health/ready", "/metrics"]
            statuses = [(await client.get(path)).status_code for path in paths]

        assert statuses == [404, 200, 200, 200]


class TestHealth:
    async def test_a_process_that_is_not_ready_gives_the_reason(self, serve: Serve) -> None:
        health = Health()
        health.add("keys", lambda: "no keys fetched yet")

        async with serve(health=health) as client:
            live, ready = await client.get("/health/live"), await client.get("/health/ready")

        assert live.status_code == 200
        assert ready.status_code == 503
        assert ready.json()["code"] == "not-ready"
        assert ready.json()["errors"] == [
            {"field": "keys", "code": "not-ready", "message": "no keys fetched yet"}
        ]

    async def test_a_failing_check_that_does_not_gate_is_reported(self, serve: Serve) -> None:
        health = Health()
        health.add("agents", lambda: "no partitions", gates=False)

        async with serve(health=health) as client:
            ready = await client.get("/health/ready")

        assert ready.status_code == 200
        assert ready.json() == {"status": "ready", "troubles": {"agents": "no partitions"}}


class TestSecurityHeaders:
    @pytest.mark.parametrize("path", ["/shop/toys/1", "/nowhere", "/shop/broken", "/health/live"])
    async def test_every_answer_has_them(self, serve: Serve, path: str) -> None:
        async with serve(toys()) as client:
            answer = await client.get(path)

        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"
        assert "strict-transport-security" not in answer.headers

    async def test_what_has_a_validator_may_be_kept_by_its_client(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.get("/docs/assets/favicon.png")

        assert answer.headers["cache-control"] == "private, no-cache"

    async def test_a_page_runs_its_own_scripts_only(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            page = await client.get("/docs")

        (inline,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
        digest = b64encode(sha256(inline.encode()).digest()).decode()
        policy = page.headers["content-security-policy"]
        assert f"script-src 'self' 'sha256-{digest}';" in policy
        assert "frame-ancestors 'none'" in policy

    @pytest.mark.parametrize(
        ("scheme", "expected"), [("https", "max-age=31536000"), ("http", None)]
    )
    async def test_https_is_made_to_stay_where_a_setting_says_so(
        self, serve: Serve, scheme: str, expected: str | None
    ) -> None:
        async with serve(toys(), hsts_max_age_s=31_536_000) as client:
            answer = await client.get(f"{scheme}://toys.example/shop/toys/1")

        assert answer.headers.get("strict-transport-security") == expected


class TestDocumentation:
    async def test_the_page_loads_nothing_from_elsewhere(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            page = (await client.get("/docs")).text
            loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
            statuses = [(await client.get(url)).status_code for url in loaded]

        assert len(loaded) == 3
        assert statuses == [200, 200, 200]
        assert "https://" not in page
        assert '"persistAuthorization": true' in page, "a reload keeps the sign-in"

    async def test_every_operation_documents_problems(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            document = (await client.get("/openapi.json")).json()

        responses = document["paths"]["/shop/toys/{number}"]["get"]["responses"]
        # Those that may be answered too: a page does not find 404 in 4XX.
        assert list(responses) == ["200", "404", "422", "4XX", "500", "503", "5XX"]
        schema = responses["4XX"]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
        assert {"Problem", "FieldProblem"} <= set(document["components"]["schemas"])
        assert set(document["paths"]) == {"/shop/toys/{number}", "/shop/broken"}
