"""The gateway's routes are those of the services' own OpenAPI documents."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from chassis.web.health import Health
from gateway.openapi import merge
from gateway.routes import OPERATOR_ROUTES, PUBLIC_ROUTES, SIGN_IN, ForwardedRoute
from services import FORWARDED, DeclaredService


@pytest.fixture
async def documents(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {each.name: (await app_of(each, tmp_path)).openapi() for each in FORWARDED}


async def app_of(service: DeclaredService, directory: Path) -> FastAPI:
    """Build the service, without a database or Kafka."""
    bootstrap: Any = import_module(f"{service.package}.bootstrap")
    needed = {
        "environment": "development",
        "database_url": "postgresql://nologin@127.0.0.1:1/nothing",
        "jwks_url": "http://127.0.0.1:1/jwks.json",
        "idempotency_secret": "s" * 32,
        "keys_dir": directory,
        "gateway_secret": "s" * 32,
        "sign_in_secret": "s" * 32,
    }
    settings_class = bootstrap.SERVICE.settings
    known = settings_class.model_fields
    settings = settings_class(**{k: v for k, v in needed.items() if k in known})
    async with bootstrap.build(settings, Health()) as running:
        app: FastAPI = running.app
        return app


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


@pytest.mark.parametrize("service", FORWARDED, ids=lambda service: service.name)
async def test_the_paths_of_a_service_are_those_that_the_gateway_forwards(
    service: DeclaredService, tmp_path: Path
) -> None:
    offered = operations((await app_of(service, tmp_path)).openapi())

    # Which of both each is for is tested on the running system (tests/e2e/test_every_route.py).
    forwarded = {
        (route.method, route.service_path)
        for route in (*PUBLIC_ROUTES, *OPERATOR_ROUTES)
        if route.service == service.name
    }
    assert forwarded == offered
    assert ("GET", "/ops/parked") in offered


@pytest.mark.parametrize(
    "routes", [PUBLIC_ROUTES, (*SIGN_IN, *OPERATOR_ROUTES)], ids=["public", "operators"]
)
async def test_the_merged_document_has_all_of_a_listener_under_one_authorisation(
    documents: dict[str, dict[str, Any]], routes: Sequence[ForwardedRoute]
) -> None:
    paths, components = merge(documents, routes)

    assert operations({"paths": paths}) == {(route.method, route.path) for route in routes}
    ids = [each["operationId"] for item in paths.values() for each in item.values()]
    assert len(ids) == len(set(ids))
    (scheme,) = components["securitySchemes"].values()
    assert scheme["flows"]["password"]["tokenUrl"] == "/auth/token"
    assert "Problem" in components["schemas"]  # one for all, under its plain name
