"""A small service for the tests of processes: one slow route, one component that can fail."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from pydantic_settings import SettingsConfigDict

from chassis.process.run import ProcessParts, command_line
from chassis.settings import ProcessSettings
from chassis.web.app import create_app
from chassis.web.health import Health


class ToySettings(ProcessSettings):
    model_config = SettingsConfigDict(env_prefix="TOYS_")

    http_port: int = 0
    directory: Path
    robot: Literal["works", "fails", "ends", "stops-badly", "hangs", "blocks"] = "works"


class Robot:
    name = "robot"
    gates_readiness = True

    def __init__(self, settings: ToySettings) -> None:
        self._behaviour = settings.robot
        self._directory = settings.directory
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        if self._behaviour == "fails":
            raise RuntimeError("out of batteries")
        if self._behaviour != "ends":
            await self._stopped.wait()
        (self._directory / "robot-ended").touch()

    async def stop(self) -> None:
        if self._behaviour == "stops-badly":
            self._stopped.set()
            raise RuntimeError("does not like to stop")
        if self._behaviour == "blocks":
            time.sleep(60)  # noqa: ASYNC251 - the event loop is to hang
        if self._behaviour != "hangs":
            self._stopped.set()

    def trouble(self) -> str | None:
        return None if (self._directory / "charged").exists() else "not charged yet"


def routes(directory: Path) -> APIRouter:
    router = APIRouter()

    @router.get("/slow")
    async def get_slow() -> str:
        (directory / "started").touch()
        while not (directory / "release").exists():  # noqa: ASYNC110 - another process creates it
            await asyncio.sleep(0.01)
        return "whole " * 100

    @router.get("/who")
    async def get_who(request: Request) -> str | None:
        return request.client and request.client.host

    return router


@asynccontextmanager
async def build(settings: ToySettings, health: Health) -> AsyncIterator[ProcessParts]:
    app = create_app(
        title="Toys",
        description="Toys, for tests.",
        version="1",
        settings=settings,
        routers=[routes(settings.directory)],
        health=health,
    )
    yield ProcessParts(app, [Robot(settings)])
    (settings.directory / "closed").write_text(
        "after the robot" if (settings.directory / "robot-ended").exists() else "too soon"
    )


cli = command_line("toys", ToySettings, build)

if __name__ == "__main__":
    cli()
