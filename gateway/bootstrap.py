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
from gateway.routes import PUBLIC_ROUTES, Service
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from gateway.watch import ServiceWatch

_TITLE: Final = "Onboarding"
_DESCRIPTION: Final = "Everything that clients may ask for, behind one door."
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
        upstreams: dict[Service, Upstream] = {}
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
                        # Only users tells addresses apart; what others don't know can't leak.
                        secret=secret if route.service is Service.USERS else None,
                        client_timeout_s=settings.client_timeout_s,
                    )
                    for route in PUBLIC_ROUTES
                ),
            ],
        )
        # A path with a slash at its end is another path, and not one of the public ones.
        app.router.redirect_slashes = False
        app.openapi = api.merged  # type: ignore[method-assign]  # FastAPI's way to another document
        yield ProcessParts(app, [ServiceWatch(upstream, api) for upstream in upstreams.values()])


def _urls(settings: GatewaySettings) -> dict[Service, str]:
    return {
        Service.USERS: settings.users_url,
        Service.ACCOUNTS: settings.accounts_url,
        Service.AUDIT: settings.audit_url,
        Service.NOTIFICATION: settings.notification_url,
    }


def _front_page() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_page() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router
