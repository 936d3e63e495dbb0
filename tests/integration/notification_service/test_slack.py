"""slack_sdk against the stand-in: the promises of the fake, and some that need a connection."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from notification_service.chat import Chat, OutcomeUnknown, Refused, Unreachable
from notification_service.slack import SlackChat
from tests.unit.notification_service.chat_suite import ChatSuite, Fault, find, message

from .stand_in import StandIn


class SlackBench:
    def __init__(self, slack: StandIn, chat: Chat) -> None:
        self.slack = slack
        self._chat = chat

    @property
    def chat(self) -> Chat:
        return self._chat

    async def texts(self) -> Sequence[str]:
        return await self.slack.texts()

    async def fail_next_post(self, fault: Fault) -> None:
        await self.slack.fail(fault, retry_after_s=7, method="chat.postMessage")


def chat_at(
    base_url: str,
    *,
    token: str = "xoxb-test",  # noqa: S107 - the stand-in accepts any token of this form
    timeout_s: float = 1,
) -> AbstractAsyncContextManager[SlackChat]:
    return aclosing(SlackChat(token, base_url, timeout_s=timeout_s))


@pytest.fixture
async def bench(slack: StandIn) -> AsyncIterator[SlackBench]:
    async with chat_at(slack.base_url) as chat:
        yield SlackBench(slack, chat)


class TestSlackChat(ChatSuite):
    async def test_is_reached_through_the_proxy_of_its_setting_and_no_other(
        self, slack: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        async with chat_at(slack.base_url) as direct:
            await direct.post(message())
        proxied = SlackChat("xoxb-test", slack.base_url, timeout_s=1, proxy="http://127.0.0.1:1")
        async with aclosing(proxied):
            with pytest.raises(Unreachable):
                await proxied.post(message())

    async def test_a_search_reads_every_page(self, bench: SlackBench) -> None:
        first = message()
        await bench.chat.post(first)
        for _ in range(201):
            await bench.slack.client.post(
                "/api/chat.postMessage",
                json={"token": "xoxb-other", "channel": "growth", "text": "another message"},
            )

        assert await find(bench, first.delivery_id) is not None

    async def test_special_characters_are_escaped(self, bench: SlackBench) -> None:
        await bench.chat.post(message(text="<!channel> & <https://example.org|click>"))

        (text,) = await bench.slack.texts()
        assert text == "&lt;!channel&gt; &amp; &lt;https://example.org|click&gt;"

    async def test_a_message_has_delivery_and_correlation_in_its_metadata(
        self, bench: SlackBench
    ) -> None:
        posted = message(correlation_id="c-9")

        await bench.chat.post(posted)

        (posted_message,) = await bench.slack.messages()
        assert posted_message["metadata"] == {
            "event_type": "notification_delivery",
            "event_payload": {"delivery_id": str(posted.delivery_id), "correlation_id": "c-9"},
        }

    async def test_a_channel_may_be_named_by_its_id(self, bench: SlackBench) -> None:
        posted = message(channel="C00000001")

        await bench.chat.post(posted)

        assert await find(bench, posted.delivery_id) is not None
        assert [each["channel"] for each in await bench.slack.messages()] == ["growth"]

    async def test_a_call_is_not_repeated_if_its_connection_is_cut(self) -> None:
        with cut_after_the_request() as (base_url, requests):
            async with chat_at(base_url, timeout_s=2) as chat:
                with pytest.raises(OutcomeUnknown):
                    await chat.post(message())

        assert len(requests) == 1

    async def test_without_a_listener_it_is_unreachable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        async with chat_at(f"http://127.0.0.1:{port}/api/", timeout_s=2) as chat:
            with pytest.raises(Unreachable):
                await chat.post(message())

    async def test_a_proxy_is_not_used_for_a_local_address(
        self, bench: SlackBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

        async with chat_at(bench.slack.base_url) as chat:
            await chat.post(message())

        assert await bench.slack.texts() == ["ada signed up"]

    async def test_posts_share_a_connection(self) -> None:
        with answering() as (base_url, connections):
            async with chat_at(base_url) as chat:
                await chat.post(message())
                await chat.post(message())

        assert len(connections) == 1

    async def test_a_token_that_slack_does_not_know_is_refused(self, bench: SlackBench) -> None:
        async with chat_at(bench.slack.base_url, token="wrong") as chat:
            with pytest.raises(Refused, match="invalid_auth"):
                await chat.post(message())


@contextmanager
def answering() -> Iterator[tuple[str, set[tuple[str, int]]]]:
    """Serve a port where every call succeeds; collect the clients' addresses."""
    connections: set[tuple[str, int]] = set()

    class Accepting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            connections.add(self.client_address)
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = b'{"ok": true, "ts": "1.000001"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Accepting) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/", connections
        server.shutdown()
    thread.join(5)


@contextmanager
def cut_after_the_request() -> Iterator[tuple[str, list[bytes]]]:
    """Serve a port where every connection is cut after the request was read."""
    requests: list[bytes] = []

    def cut(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    requests.append(connection.recv(65_536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut, args=[listener], daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/", requests
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
