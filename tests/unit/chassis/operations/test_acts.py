"""Routes and commands that are made from operations."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import httpx
import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from chassis.operations import terminal
from chassis.operations.acts import Act, AnyOperation, Command, NoInput, Query, Route
from chassis.operations.commands.context import CommandContext
from chassis.operations.commands.derived import command_of, group_of
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.payloads import Payload
from chassis.operations.routes import operations_routes, routes_of
from chassis.operations.terminal import Shown
from chassis.web.auth import OPERATOR, Principal
from chassis.web.security_log import reads_people, route_of

T = TypeVar("T")

NO_RUNTIME: Final[Any] = None
ADA = Principal(UUID(int=1), frozenset({OPERATOR}))
LAMP = UUID(int=7)


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Search(BaseModel):
    shelf: str
    color: Color | None = None
    maker_id: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=9, description="At most.")] = 5


class OneThing(BaseModel):
    thing_id: UUID


class Replacement(OneThing):
    """What replaces it."""

    payload: Payload


class Answer(BaseModel):
    called: str
    given: dict[str, Any]


class Calls:
    """Answers with what it was called with."""

    async def search(self, _: AnyRuntime, search: Search) -> Answer:
        return Answer(called="search", given=search.model_dump(mode="json"))

    async def whole(self, _: AnyRuntime, of_it: NoInput) -> Answer:
        return Answer(called="whole", given=of_it.model_dump())

    async def show(self, _: AnyRuntime, one: OneThing) -> Answer:
        return Answer(called="show", given=one.model_dump(mode="json"))

    async def replace(self, _: AnyRuntime, new: Replacement, operator: Operator) -> Answer:
        given = new.model_dump(mode="json") | {"by": operator.by, "why": operator.why}
        return Answer(called="replace", given=given)

    async def drop(self, _: AnyRuntime, one: OneThing, operator: Operator) -> None: ...


def shown(answer: Answer) -> Shown:
    return Shown(answer.called, warning="careful", failed=answer.called == "replace")


CALLS = Calls()
SEARCH = Query(
    summary="Search things",
    input=Search,
    output=Answer,
    run=CALLS.search,
    route=Route("GET", "/things", "get_things"),
    command=Command(name="list", show=shown, arguments=("shelf",)),
)
WHOLE = Query(
    summary="All of it",
    input=NoInput,
    output=Answer,
    run=CALLS.whole,
    route=Route("GET", "/whole", "get_whole"),
)
SHOW = Query(
    summary="One thing",
    input=OneThing,
    output=Answer,
    run=CALLS.show,
    route=Route("GET", "/things/{thing_id}", "get_thing"),
    command=Command(name="show", show=shown, payload_of=lambda answer: f"of {answer.called}"),
)
REPLACE = Act(
    summary="Replace it",
    description="By another.",
    input=Replacement,
    output=Answer,
    run=CALLS.replace,
    route=Route("PUT", "/things/{thing_id}/payload", "put_thing"),
    command=Command(name="replace", show=shown),
)
DROP = Act(
    summary="Drop it",
    input=OneThing,
    run=CALLS.drop,
    route=Route("POST", "/things/{thing_id}/drop", "post_drop"),
    command=Command(name="drop", show=terminal.done("dropped")),
)
OPERATIONS: tuple[AnyOperation, ...] = (SEARCH, WHOLE, SHOW, REPLACE, DROP)


async def _an_operator() -> Principal:
    return ADA


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes_of(OPERATIONS, NO_RUNTIME, _an_operator))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path", "body", "expected"),
        [
            (
                "GET",
                "/things?shelf=top&color=red",
                None,
                {"shelf": "top", "color": "red", "maker_id": None, "limit": 5},
            ),
            ("GET", "/whole", None, {}),
            ("GET", f"/things/{LAMP}", None, {"thing_id": str(LAMP)}),
            (
                "PUT",
                f"/things/{LAMP}/payload",
                {"why": "broken", "payload": {"a": 1}},
                {"thing_id": str(LAMP), "payload": {"a": 1}, "by": str(ADA.id), "why": "broken"},
            ),
        ],
    )
    async def test_give_the_coroutine_its_input_and_the_operator(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        expected: dict[str, Any],
    ) -> None:
        answer = await client.request(method, path, json=body)

        assert (answer.status_code, answer.json()["given"]) == (200, expected)

    async def test_of_an_act_without_an_output_answer_204(self, client: httpx.AsyncClient) -> None:
        answer = await client.post(f"/things/{LAMP}/drop", json={"why": "broken"})

        assert (answer.status_code, answer.content) == (204, b"")

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/things", None),
            ("GET", "/things?shelf=top&limit=10", None),
            ("GET", "/things/1", None),
            ("POST", f"/things/{LAMP}/drop", {}),
            ("POST", f"/things/{LAMP}/drop", {"why": ""}),
            ("POST", f"/things/{LAMP}/drop", {"why": "x", "by": "another"}),
            ("PUT", f"/things/{LAMP}/payload", {"why": "x"}),
            ("PUT", f"/things/{LAMP}/payload", {"why": "x", "payload": [], "more": 1}),
        ],
    )
    async def test_refuse_an_invalid_input(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
    ) -> None:
        assert (await client.request(method, path, json=body)).status_code == 422

    async def test_are_named_whole_in_logs_and_metrics(self) -> None:
        app = FastAPI()
        app.include_router(operations_routes(NO_RUNTIME, _an_operator))
        named = []

        @app.middleware("http")
        async def notice(
            request: Request, ask: Callable[[Request], Awaitable[Response]]
        ) -> Response:
            answer = await ask(request)
            named.append(route_of(request))
            return answer

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/ops/parked/none")

        assert named == ["/ops/parked/{parked_id}"]

    async def test_are_documented(self, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()

        put = document["paths"]["/things/{thing_id}/payload"]["put"]
        assert (put["summary"], put["description"]) == ("Replace it", "By another.")
        assert [each["name"] for each in put["parameters"]] == ["thing_id"]
        body = document["components"]["schemas"]["Replacement"]
        assert (body["description"], body["required"]) == ("What replaces it.", ["why", "payload"])
        search = document["paths"]["/things"]["get"]["parameters"]
        assert {each["name"]: each["in"] for each in search} == dict.fromkeys(
            Search.model_fields, "query"
        )


class TestReads:
    async def test_show_people_unless_it_is_said_that_they_do_not(self) -> None:
        harmless = replace(WHOLE, of_people=False)
        tried_out = replace(SHOW, route=Route("POST", "/things/{thing_id}/try", "post_try"))
        router = routes_of([SEARCH, harmless, tried_out, DROP], NO_RUNTIME, _an_operator)
        shown = []
        app = FastAPI()
        app.include_router(router)

        @app.middleware("http")
        async def notice(
            request: Request, ask: Callable[[Request], Awaitable[Response]]
        ) -> Response:
            answer = await ask(request)
            shown.append(reads_people(request))
            return answer

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/things?shelf=top")
            await client.get("/whole")
            await client.post(f"/things/{LAMP}/try")
            await client.post(f"/things/{LAMP}/drop", json={"why": "broken"})

        assert shown == [True, False, True, False]


class NoDatabase(CommandContext):
    """Runs commands without a service."""

    def __init__(self) -> None: ...

    def run(self, work: Callable[[AnyRuntime], Awaitable[T]]) -> T:
        async def result() -> T:
            return await work(NO_RUNTIME)

        return asyncio.run(result())


def type_in(*arguments: object) -> Result:
    group = group_of("things", "Things.", OPERATIONS, NoDatabase())
    return CliRunner().invoke(group, [str(each) for each in arguments])


class TestCommands:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (
                ("list", "top", "--color", "red", "--maker-id", LAMP),
                {"shelf": "top", "color": "red", "maker_id": str(LAMP), "limit": 5},
            ),
            (("show", LAMP), {"thing_id": str(LAMP)}),
        ],
    )
    def test_give_the_coroutine_its_input(
        self, arguments: tuple[object, ...], expected: dict[str, Any]
    ) -> None:
        typed = type_in(*arguments, "--json")

        assert (typed.exit_code, json.loads(typed.stdout)["given"]) == (0, expected)

    def test_read_a_payload_from_a_file_and_take_the_operator(self, tmp_path: Path) -> None:
        file = tmp_path / "payload.json"
        file.write_text('{"a": 1}')

        typed = type_in(
            "replace", LAMP, "--payload-file", file, "--why", "broken", "--by", "ada", "--json"
        )

        given = {"thing_id": str(LAMP), "payload": {"a": 1}, "by": "ada", "why": "broken"}
        assert json.loads(typed.stdout)["given"] == given

    def test_show_the_result_and_the_warning_beside_it(self) -> None:
        typed = type_in("list", "top")

        assert (typed.exit_code, typed.stdout, typed.stderr) == (0, "search\n", "careful\n")

    def test_go_on_until_nothing_is_left_over_and_show_the_sum(self) -> None:
        calls: list[str | None] = []

        async def some(_: AnyRuntime, search: Search) -> Answer:
            calls.append(search.color)
            return Answer(called=str(len(calls)), given={})

        command = Command(
            name="some",
            show=lambda answer: Shown(f"{answer.called} done"),
            going_on=lambda answer: {"color": "red"} if answer.called != "3" else None,
            sum_of=lambda first, last: Answer(called=last.called, given={"first": first.called}),
        )
        group = group_of(
            "things", "Things.", [replace(SEARCH, run=some, command=command)], NoDatabase()
        )

        typed = CliRunner().invoke(group, ["some", "--shelf", "top"])

        assert (typed.exit_code, typed.stdout) == (0, "3 done\n")
        assert typed.stderr == "… 1 done\n… 2 done\n"
        assert calls == [None, "red", "red"]

    def test_show_what_is_json_itself_below_the_other_fields(self) -> None:
        shown = terminal.fields(Answer(called="x", given={"a": {"b": 1}}))

        assert shown.text == 'called  x\ngiven:\n{\n  "a": {\n    "b": 1\n  }\n}'

    def test_print_only_the_payload_if_asked(self) -> None:
        assert type_in("show", LAMP, "--payload").output == "of show\n"

    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_exit_with_1_on_a_failure(self, tmp_path: Path, more: tuple[str, ...]) -> None:
        file = tmp_path / "payload.json"
        file.write_text("{}")

        assert type_in("replace", LAMP, "--payload-file", file, "--why", "x", *more).exit_code == 1

    def test_of_an_act_without_an_output_say_that_it_is_done(self) -> None:
        assert type_in("drop", LAMP, "--why", "broken").output == "dropped\n"
        assert "--json" not in type_in("drop", "--help").output

    @pytest.mark.parametrize(
        "arguments",
        [
            ("list",),
            ("list", "top", "--limit", "10"),
            ("list", "top", "--color", "green"),
            ("show", "1"),
            ("drop", LAMP),
            ("drop", LAMP, "--why", ""),
            ("drop", LAMP, "--why", "x", "--by", "b" * 256),
            ("replace", LAMP, "--why", "x"),
            ("replace", LAMP, "--why", "x", "--payload-file", __file__),
        ],
    )
    def test_exit_with_2_on_an_invalid_input(self, arguments: tuple[object, ...]) -> None:
        assert type_in(*arguments).exit_code == 2

    def test_are_documented(self) -> None:
        output = type_in("replace", "--help").output

        assert "Replace it.\n\n  By another.\n" in output
        assert "THING_ID" in output
        assert "At most.  [default: 5; 1<=x<=9]" in type_in("list", "--help").output

    def test_are_not_made_of_an_operation_that_has_none(self) -> None:
        with pytest.raises(ValueError, match="get_whole has no command"):
            command_of(WHOLE, NoDatabase())
