import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import Clock
from chassis.web.health import Health
from notification_service.slack_stand_in.bootstrap import build
from notification_service.slack_stand_in.messages import Messages
from notification_service.slack_stand_in.settings import StandInSettings

from .making import NOW

TOKEN = {"Authorization": "Bearer xoxb-1"}
METADATA = {"event_type": "delivery", "event_payload": {"delivery_id": "d-1"}}


@asynccontextmanager
async def stand_in(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with build(StandInSettings(**settings), Health()) as running:
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=TOKEN
        ) as client:
            yield client


@pytest.fixture
async def slack() -> AsyncIterator[httpx.AsyncClient]:
    async with stand_in(channels="growth,other") as client:
        yield client


async def call(slack: httpx.AsyncClient, method: str, **arguments: Any) -> dict[str, Any]:
    answer = await slack.post(f"/api/{method}", json=arguments)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def post(slack: httpx.AsyncClient, text: str, channel: str = "growth") -> dict[str, Any]:
    return await call(slack, "chat.postMessage", channel=channel, text=text, metadata=METADATA)


async def channel_id(slack: httpx.AsyncClient, name: str = "growth") -> str:
    listed = await call(slack, "conversations.list")
    return next(str(each["id"]) for each in listed["channels"] if each["name"] == name)


async def texts(slack: httpx.AsyncClient) -> list[str]:
    messages = (await slack.get("/messages")).json()["messages"]
    return [each["text"] for each in messages]


class TestPostMessage:
    @pytest.mark.parametrize("form", ["json", "data"])
    async def test_it_accepts_json_and_forms(self, slack: httpx.AsyncClient, form: str) -> None:
        metadata: Any = METADATA if form == "json" else json.dumps(METADATA)
        body: Any = {"channel": "#growth", "text": "hello", "metadata": metadata}

        answer = await slack.post("/api/chat.postMessage", **{form: body})

        assert answer.json()["ok"] is True
        (posted,) = (await slack.get("/messages")).json()["messages"]
        assert (posted["channel"], posted["text"], posted["metadata"]) == (
            "growth",
            "hello",
            METADATA,
        )
        assert posted["ts"] == answer.json()["ts"]

    async def test_each_message_has_a_greater_ts(self, slack: httpx.AsyncClient) -> None:
        stamps = [(await post(slack, str(number)))["ts"] for number in range(20)]

        assert stamps == sorted(set(stamps))

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"channel": "missing", "text": "x"}, "channel_not_found"),
            ({"text": "x"}, "channel_not_found"),
            ({"channel": "growth"}, "no_text"),
            ({"channel": "growth", "text": "x" * 40_001}, "msg_too_long"),
            ({"channel": "growth", "text": "x", "metadata": "{"}, "invalid_metadata_format"),
            ({"channel": "growth", "text": "x", "metadata": {}}, "invalid_metadata_schema"),
        ],
    )
    async def test_a_call_that_slack_refuses_is_refused(
        self, slack: httpx.AsyncClient, arguments: dict[str, Any], error: str
    ) -> None:
        answer = await call(slack, "chat.postMessage", **arguments)

        assert answer == {"ok": False, "error": error}
        assert await texts(slack) == []


class TestEveryMethod:
    @pytest.mark.parametrize(
        ("header", "error"), [("", "not_authed"), ("Bearer secret", "invalid_auth")]
    )
    async def test_a_token_is_needed(
        self, slack: httpx.AsyncClient, header: str, error: str
    ) -> None:
        answer = await slack.post("/api/auth.test", headers={"Authorization": header})

        assert answer.json() == {"ok": False, "error": error}

    async def test_a_token_in_the_form_is_accepted(self, slack: httpx.AsyncClient) -> None:
        answer = await slack.post(
            "/api/auth.test", data={"token": "xoxb-2"}, headers={"Authorization": ""}
        )

        assert answer.json()["ok"] is True

    async def test_an_unknown_method_is_refused(self, slack: httpx.AsyncClient) -> None:
        assert (await call(slack, "chat.shout"))["error"] == "unknown_method"

    @pytest.mark.parametrize(("body", "error"), [("{", "invalid_json"), ("[]", "json_not_object")])
    async def test_an_invalid_body_is_refused(
        self, slack: httpx.AsyncClient, body: str, error: str
    ) -> None:
        answer = await slack.post(
            "/api/auth.test", content=body, headers={"Content-Type": "application/json"}
        )

        assert answer.json() == {"ok": False, "error": error}


class TestHistory:
    async def test_it_needs_the_channels_id(self, slack: httpx.AsyncClient) -> None:
        answer = await call(slack, "conversations.history", channel="growth")

        assert answer["error"] == "channel_not_found"

    async def test_it_lists_one_channel_newest_first_in_pages(
        self, slack: httpx.AsyncClient
    ) -> None:
        for number in range(5):
            await post(slack, str(number))
            await post(slack, "elsewhere", channel="other")
        channel = await channel_id(slack)
        seen: list[str] = []
        sizes: list[int] = []
        cursor = ""

        while True:
            page = await call(
                slack, "conversations.history", channel=channel, limit=2, cursor=cursor
            )
            seen += [each["text"] for each in page["messages"]]
            sizes.append(len(page["messages"]))
            if not page["has_more"]:
                break
            cursor = page["response_metadata"]["next_cursor"]

        assert seen == ["4", "3", "2", "1", "0"]
        assert sizes == [2, 2, 1]

    async def test_oldest_and_latest_are_exclusive_bounds(self, slack: httpx.AsyncClient) -> None:
        stamps = [(await post(slack, str(number)))["ts"] for number in range(4)]
        asked = {"channel": await channel_id(slack), "oldest": stamps[0], "latest": stamps[3]}

        without = await call(slack, "conversations.history", **asked)
        with_them = await call(slack, "conversations.history", **asked, inclusive=True)

        assert [each["text"] for each in without["messages"]] == ["2", "1"]
        assert [each["text"] for each in with_them["messages"]] == ["3", "2", "1", "0"]

    async def test_it_has_metadata_if_asked_for(self, slack: httpx.AsyncClient) -> None:
        await post(slack, "hello")
        channel = await channel_id(slack)

        plain = await call(slack, "conversations.history", channel=channel)
        whole = await call(
            slack, "conversations.history", channel=channel, include_all_metadata=True
        )

        assert "metadata" not in plain["messages"][0]
        assert whole["messages"][0]["metadata"] == METADATA

    @pytest.mark.parametrize(
        ("argument", "value", "error"),
        [
            ("oldest", "yesterday", "invalid_ts_oldest"),
            ("latest", "tomorrow", "invalid_ts_latest"),
            ("limit", "0", "invalid_limit"),
            ("limit", "1000", "invalid_limit"),
            ("cursor", "?", "invalid_cursor"),
        ],
    )
    async def test_invalid_arguments_are_refused(
        self, slack: httpx.AsyncClient, argument: str, value: str, error: str
    ) -> None:
        channel = await channel_id(slack)

        answer = await call(slack, "conversations.history", **{"channel": channel, argument: value})

        assert answer == {"ok": False, "error": error}


class TestFaults:
    async def test_a_rate_limit_has_retry_after(self, slack: httpx.AsyncClient) -> None:
        await slack.post("/control/faults", json={"kind": "rate_limited", "retry_after_s": 9})

        limited = await slack.post("/api/chat.postMessage", json={"channel": "growth", "text": "x"})

        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "9")
        assert limited.json() == {"ok": False, "error": "ratelimited"}
        assert (await post(slack, "y"))["ok"] is True

    async def test_they_occur_in_order_and_as_often_as_set(self, slack: httpx.AsyncClient) -> None:
        await slack.post("/control/faults", json={"kind": "token_revoked", "count": 2})
        await slack.post("/control/faults", json={"kind": "channel_not_found"})

        errors = [(await post(slack, "x")).get("error") for _ in range(4)]

        assert errors == ["token_revoked", "token_revoked", "channel_not_found", None]
        assert await texts(slack) == ["x"]

    async def test_one_for_a_method_affects_no_other_method(self, slack: httpx.AsyncClient) -> None:
        await slack.post(
            "/control/faults", json={"kind": "server_error", "method": "conversations.history"}
        )

        posted = await post(slack, "x")
        failed = await slack.post("/api/conversations.history", json={"channel": "C1"})

        assert posted["ok"] is True
        assert failed.status_code == 500

    async def test_one_for_a_text_affects_no_other_text(self, slack: httpx.AsyncClient) -> None:
        await slack.post("/control/faults", json={"kind": "token_revoked", "text": "x"})

        errors = [(await post(slack, text)).get("error") for text in ("y", "x", "x")]

        assert errors == [None, "token_revoked", None]

    async def test_they_can_be_cleared(self, slack: httpx.AsyncClient) -> None:
        await slack.post("/control/faults", json={"kind": "server_error", "count": 100})

        await slack.delete("/control/faults")

        assert (await post(slack, "x"))["ok"] is True

    async def test_an_unknown_kind_is_refused(self, slack: httpx.AsyncClient) -> None:
        answer = await slack.post("/control/faults", json={"kind": "earthquake"})

        assert answer.status_code == 422


class TestThePage:
    async def test_it_shows_messages_newest_first_and_escaped(
        self, slack: httpx.AsyncClient
    ) -> None:
        await post(slack, "first")
        await post(slack, "&lt;script&gt;alert(1)&lt;/script&gt; & <b>bold</b>")

        page = await slack.get("/")

        assert page.headers["Content-Type"].startswith("text/html")
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page.text
        assert "<script" not in page.text
        assert page.text.index("bold") < page.text.index("first")

    async def test_it_is_shown_without_messages(self, slack: httpx.AsyncClient) -> None:
        assert "No messages yet" in (await slack.get("/")).text


class TestAPageElsewhere:
    """Refused: the stand-in asks nobody to sign in."""

    @pytest.mark.parametrize(
        "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=str
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/messages"),
            ("POST", "/control/faults"),
            ("POST", "/api/chat.postMessage"),
        ],
    )
    async def test_reaches_nothing(
        self, slack: httpx.AsyncClient, headers: dict[str, str], method: str, path: str
    ) -> None:
        answer = await slack.request(method, path, headers=headers)

        assert answer.status_code == 403

    async def test_a_host_that_is_set_is_served_and_no_other(self) -> None:
        async with stand_in(hosts="slack.internal") as slack:
            answer = await slack.get("/messages", headers={"Host": "slack.internal:8080"})
            refused = await slack.get("/messages")

        assert (answer.status_code, refused.status_code) == (200, 403)


class TestMessagesInAFile:
    async def test_they_are_kept_over_a_restart(self, tmp_path: Path) -> None:
        async with stand_in(directory=tmp_path / "slack") as slack:
            before = (await post(slack, "one"))["ts"]

        async with stand_in(directory=tmp_path / "slack") as slack:
            after = (await post(slack, "two"))["ts"]
            assert await texts(slack) == ["one", "two"]

        assert before < after

    def test_an_incomplete_line_is_dropped(self, tmp_path: Path) -> None:
        file = tmp_path / "messages.jsonl"
        messages = Messages(file, Clock(NOW))
        messages.add("growth", "whole", None)
        messages.close()
        with file.open("a") as lines:
            lines.write('{"ts": "1')

        reopened = Messages(file, Clock(NOW))
        reopened.add("growth", "next", None)
        reopened.close()

        assert [each.text for each in Messages(file, Clock(NOW))] == ["whole", "next"]

    def test_ts_increases_if_the_clock_stands_still(self, tmp_path: Path) -> None:
        file = tmp_path / "messages.jsonl"
        stamps = []
        for _ in range(3):
            messages = Messages(file, Clock(NOW))
            stamps.append(messages.add("growth", "x", None).ts)
            messages.close()

        seconds = f"{NOW.timestamp():.0f}"
        assert stamps == [f"{seconds}.000000", f"{seconds}.000001", f"{seconds}.000002"]
