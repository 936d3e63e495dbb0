"""How the gateway is put together."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import APIRouter
from starlette.responses import RedirectResponse

from chassis.process.run import ProcessParts
from chassis.web.app import create_app
from chassis.web.health import Health
from gateway.forward import forwarding
from gateway.openapi import ApiDocument
from gateway.routes import PUBLIC_ROUTES, in_order_of_matching
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from gateway.watch import ServiceWatch
from services import FORWARDED

_TITLE: Final = "Onboarding"
_DESCRIPTION: Final = "All public operations of the services."
_VERSION: Final = "1"
# The service that limits failed sign-ins by the client's network.
_USES_CLIENT_ADDRESS: Final = "users"


@asynccontextmanager
async def build(settings: GatewaySettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Yield the gateway: its routes, and a watch over each service."""
    secret = settings.forward_secret.get_secret_value()
    tls = ssl.create_default_context()
    api = ApiDocument(
        title=_TITLE, description=_DESCRIPTION, version=_VERSION, routes=PUBLIC_ROUTES
    )
    async with AsyncExitStack() as closing:
        upstreams: dict[str, Upstream] = {}
        for service in FORWARDED:
            upstream = Upstream(service.name, settings.url_of(service), settings, tls)
            upstreams[service.name] = upstream
            closing.push_async_callback(upstream.aclose)
        app = create_app(
            title=_TITLE,
            description=_DESCRIPTION,
            version=_VERSION,
            settings=settings,
            health=health,
            routers=[
                _front_page(),
                *(
                    forwarding(
                        route,
                        upstreams[route.service],
                        secret=secret if route.service == _USES_CLIENT_ADDRESS else None,
                    )
                    for route in in_order_of_matching(PUBLIC_ROUTES)
                ),
            ],
        )
        # A path that ends with a slash is another path, and not a public one.
        app.router.redirect_slashes = False
        app.openapi = api.merged  # type: ignore[method-assign]  # how FastAPI takes another document
        yield ProcessParts(app, [ServiceWatch(upstream, api) for upstream in upstreams.values()])


def _front_page() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_page() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router
