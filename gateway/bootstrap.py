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
from gateway.routes import PUBLIC_ROUTES, ServiceName
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from gateway.watch import ServiceWatch

_TITLE: Final = "Onboarding"
_DESCRIPTION: Final = "All public operations of the services."
_VERSION: Final = "1"


@asynccontextmanager
async def build(settings: GatewaySettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Yield the gateway: its routes, and a watch over each service."""
    secret = settings.forward_secret.get_secret_value()
    tls = ssl.create_default_context()
    api = ApiDocument(
        title=_TITLE, description=_DESCRIPTION, version=_VERSION, routes=PUBLIC_ROUTES
    )
    async with AsyncExitStack() as closing:
        upstreams: dict[ServiceName, Upstream] = {}
        for service, url in _urls(settings).items():
            upstreams[service] = Upstream(service, url, settings, tls)
            closing.push_async_callback(upstreams[service].aclose)
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
                        # The other services do not use the client's address.
                        secret=secret if route.service is ServiceName.USERS else None,
                        client_timeout_s=settings.client_timeout_s,
                    )
                    for route in PUBLIC_ROUTES
                ),
            ],
        )
        # A path that ends with a slash is another path, and not a public one.
        app.router.redirect_slashes = False
        app.openapi = api.merged  # type: ignore[method-assign]  # how FastAPI takes another document
        yield ProcessParts(app, [ServiceWatch(upstream, api) for upstream in upstreams.values()])


def _urls(settings: GatewaySettings) -> dict[ServiceName, str]:
    return {
        ServiceName.USERS: settings.users_url,
        ServiceName.ACCOUNTS: settings.accounts_url,
        ServiceName.AUDIT: settings.audit_url,
        ServiceName.NOTIFICATION: settings.notification_url,
    }


def _front_page() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_page() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router
