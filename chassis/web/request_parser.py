"""Parses requests as h11 does, with the rules of RFC 9112 that h11 leaves to its caller."""

import re
from dataclasses import dataclass
from typing import Any, Final

import h11
from h11._receivebuffer import ReceiveBuffer

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
# With user information it is left as it is, and no route has such a path (RFC 9110, 4.2.4).
_ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#@]+)([^#]*)", re.IGNORECASE)
_CODES: Final = {431: "head-too-large", 501: "transfer-encoding-not-implemented"}


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a request can't be parsed, as the status and the code of a problem."""

    status: int
    code: str


class RequestParser(h11.Connection):
    """A server's side of one connection.

    It raises nothing for what a client sends: after ``next_event`` the reason is in ``malformed``.

    - The target may be in absolute form; its authority replaces ``Host`` (RFC 9112, 3.2.2).
    - ``Transfer-Encoding`` beside ``Content-Length`` overrides it, and the connection is closed
      after the answer (RFC 9112, 6.1 and 6.3).
    - A line ends with CRLF. RFC 9112 (2.2) lets a recipient take LF alone; two that differ in it
      can be made to see different requests.

    :ivar heads: how many requests' heads were parsed
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self._receive_buffer: ReceiveBuffer = _HeadBuffer(max_head_bytes)
        self.malformed: Malformed | None = None
        self.heads = 0

    @property
    def has_unparsed(self) -> bool:
        """Whether the client sent something that is not parsed yet."""
        return bool(self._receive_buffer)

    def next_event(self) -> Any:
        """Return what h11 does; ``NEED_DATA`` as well for a request that is malformed."""
        if self.malformed is not None:
            return h11.NEED_DATA
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            self.malformed = Malformed(status, _CODES.get(status, "malformed-request"))
            return h11.NEED_DATA
        if not isinstance(event, h11.Request):
            return event
        self.heads += 1
        return _with_one_framing(_in_origin_form(event))


def _in_origin_form(request: h11.Request) -> h11.Request:
    match = _ABSOLUTE_FORM.fullmatch(request.target)
    if match is None:
        return request
    authority, rest = match.groups()
    others = [(name, value) for name, value in request.headers if name != b"host"]
    target = rest if rest.startswith(b"/") else b"/" + rest
    return _changed(request, [(b"host", authority), *others], target)


def _with_one_framing(request: h11.Request) -> h11.Request:
    names = {name for name, _ in request.headers}
    if not {b"transfer-encoding", b"content-length"} <= names:
        return request
    others = [(name, value) for name, value in request.headers if name != b"content-length"]
    # The server repeats this field in its answer, and then closes the connection.
    return _changed(request, [*others, (b"connection", b"close")], request.target)


def _changed(
    request: h11.Request, headers: list[tuple[bytes, bytes]], target: bytes
) -> h11.Request:
    return h11.Request(
        method=request.method, headers=headers, target=target, http_version=request.http_version
    )


class _HeadBuffer(ReceiveBuffer):
    """h11's buffer of received bytes, without lines that end with LF alone, and bounded.

    h11 bounds only a head that is not complete yet.
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__()
        self._max_head_bytes = max_head_bytes

    def maybe_extract_lines(self) -> list[bytearray] | None:
        end = self._data.find(b"\r\n\r\n", max(0, self._multiple_lines_search - 3))
        # From the last byte that was looked at: it may be the CR of this LF.
        begin = max(0, self._multiple_lines_search - 1)
        if _BARE_LF.search(self._data, begin, len(self._data) if end < 0 else end):
            raise h11.LocalProtocolError("a line ends with LF alone")
        if end > self._max_head_bytes:
            raise h11.LocalProtocolError("the head is too large", error_status_hint=431)
        return super().maybe_extract_lines()
