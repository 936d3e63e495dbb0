"""Sends requests as fast as a server answers, over kept connections, and prints the rate.

``python -m benchmarks.programs.http_load PORT CONNECTIONS SECONDS STATUS REQUESTS``. The file has
one raw request per line, as a JSON string. They are sent in turn, and ``{n}`` is another text each
time. It uses bare streams, because a client library would take processor time from the server.
"""

import asyncio
import json
import re
import secrets
import sys
import time
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

_WARM_UP_S: Final = 0.5
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class UnexpectedAnswer(Exception):
    """The status is not the expected one; the message begins with the answer."""


async def main(
    port: int, connections: int, seconds: float, status: int, requests: list[str]
) -> None:
    number = count()
    run = secrets.token_hex(3)
    expected = f"HTTP/1.1 {status} ".encode()
    took_s: list[float] = []
    counting_from_s = time.monotonic() + _WARM_UP_S
    until_s = counting_from_s + seconds

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent_s = time.monotonic()
        while sent_s < until_s:
            n = next(number)
            writer.write(requests[n % len(requests)].replace("{n}", f"{run}{n:06}").encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if not head.startswith(expected):
                raise UnexpectedAnswer((head + body)[:500])
            answered_s = time.monotonic()
            if counting_from_s <= answered_s < until_s:
                took_s.append(answered_s - sent_s)
            sent_s = answered_s
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    print(json.dumps({"per_s": len(took_s) / seconds, "p50_ms": median(took_s) * 1_000}))


if __name__ == "__main__":
    port, connections, seconds, status, file = sys.argv[1:]
    lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
    uvloop.run(main(int(port), int(connections), float(seconds), int(status), lines))
