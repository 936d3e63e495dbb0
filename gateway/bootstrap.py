"""How the gateway is put together."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse

from chassis.process.run import ProcessParts
from chassis.web.app import create_app
from chassis.web.health import Health
from gateway.forward import forwarding
from gateway.openapi import ApiDocument
from gateway.routes import OPERATOR_ROUTES, PUBLIC_ROUTES, SIGN_IN, in_order_of_matching
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from gateway.watch import ServiceWatch
from services import FORWARDED

_VERSION: Final = "1"
# The service that limits failed sign-ins by the client's network.
_USES_CLIENT_ADDRESS: Final = "users"


@asynccontextmanager
async def build(settings: GatewaySettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Yield the gateway: its two listeners, and a watch over each service."""
    tls = ssl.create_default_context(cafile=settings.http_ca_file)
    public = ApiDocument(
        title="Onboarding",
        description="All public operations of the services.",
        version=_VERSION,
        routes=PUBLIC_ROUTES,
    )
    for_operators = ApiDocument(
        title="Onboarding, for operators",
        description="All operations of the services that need an operator.",
        version=_VERSION,
        routes=(*SIGN_IN, *OPERATOR_ROUTES),
    )
    async with AsyncExitStack() as closing:
        upstreams: dict[tuple[str, bool], Upstream] = {}
        for service in FORWARDED:
            for streams in (False, True) if service.stream_routes else (False,):
                upstream = Upstream(
                    service.name, settings.url_of(service), settings, tls, streams=streams
                )
                upstreams[service.name, streams] = upstream
                closing.push_async_callback(upstream.aclose)
        yield ProcessParts(
            _app(settings, health, public, upstreams, public=True),
            [
                ServiceWatch(each, [public, for_operators])
                for (_, streams), each in upstreams.items()
                if not streams
            ],
            [_app(settings, health, for_operators, upstreams, public=False)],
        )


def _app(
    settings: GatewaySettings,
    health: Health,
    document: ApiDocument,
    upstreams: Mapping[tuple[str, bool], Upstream],
    *,
    public: bool,
) -> FastAPI:
    """Return the app that forwards the routes of this document."""
    secret = settings.forward_secret.get_secret_value()
    documented = settings.public_document or not public
    app = create_app(
        title=document.title,
        description=document.description,
        version=_VERSION,
        settings=settings,
        health=health,
        routers=[
            *([_front_page()] if documented else []),
            *(
                forwarding(
                    route,
                    upstreams[route.service, route.streams],
                    secret=secret if route.service == _USES_CLIENT_ADDRESS else None,
                    stopping=health.stopping if route.streams else None,
                )
                for route in in_order_of_matching(document.routes)
            ),
        ],
        public=public,
        document=documented,
        edge=True,
    )
    # A path that ends with a slash is another path, and not one of this listener.
    app.router.redirect_slashes = False
    app.openapi = document.merged  # type: ignore[method-assign]  # how FastAPI takes another document
    return app


def _front_page() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_page() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router
