"""Builds the stand-in from its parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from chassis.process.run import ProcessParts
from chassis.web.app import create_app
from chassis.web.health import Health
from chassis.web.hosts import only_at
from notification_service.slack_stand_in import web_api
from notification_service.slack_stand_in.faults import Fault, Faults
from notification_service.slack_stand_in.messages import Messages
from notification_service.slack_stand_in.page import render
from notification_service.slack_stand_in.settings import StandInSettings


@asynccontextmanager
async def build(settings: StandInSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Read the stored messages, and yield the app."""
    file = settings.directory / "messages.jsonl" if settings.directory else None
    messages, faults = Messages(file, lambda: datetime.now(UTC)), Faults()
    api = web_api.WebApi(messages, settings.channels.split(","))
    # It needs no sign-in, so a page that a developer opens must not reach it.
    routes = APIRouter(dependencies=[Depends(only_at(settings.hosts.lower().split(",")))])
    for each in (web_api.routes(api, faults), _control(faults), _shown(messages)):
        routes.include_router(each)
    app = create_app(
        title="Slack stand-in",
        description="Slack's Web API under /api; faults to cause are set under /control.",
        version="1.0",
        settings=settings,
        routers=[routes],
        health=health,
    )
    try:
        yield ProcessParts(app, [])
    finally:
        messages.close()


def _control(faults: Faults) -> APIRouter:
    router = APIRouter(prefix="/control")

    @router.post("/faults", status_code=204, summary="Make the next calls fail")
    async def post_fault(fault: Fault) -> None:
        faults.add(fault)

    @router.delete("/faults", status_code=204, summary="Let all calls succeed again")
    async def delete_faults() -> None:
        faults.clear()

    return router


def _shown(messages: Messages) -> APIRouter:
    router = APIRouter()

    @router.get("/messages", summary="All messages, oldest first")
    async def get_messages() -> dict[str, list[dict[str, Any]]]:
        return {"messages": [asdict(each) for each in messages]}

    @router.get("/", include_in_schema=False)
    async def get_page() -> HTMLResponse:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(
            render(messages.newest_first()), headers={"Content-Security-Policy": policy}
        )

    return router
