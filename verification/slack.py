"""Reads the messages that were posted to the stand-in for Slack."""

import httpx

from chassis.web.client import direct_client
from verification.addresses import CannotVerify
from verification.evidence import Evidence


async def read_messages_into(evidence: Evidence, stand_in_url: str) -> None:
    """Add every message that the stand-in keeps, with the id of its delivery.

    :raises CannotVerify: the stand-in does not answer as it should
    """
    try:
        async with direct_client(base_url=stand_in_url, timeout=30) as client:
            answer = (await client.get("/messages")).raise_for_status()
        messages = answer.json()["messages"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise CannotVerify(f"Slack's stand-in ({stand_in_url}): {type(error).__name__}") from error
    evidence.add(
        "messages",
        (
            (
                each["ts"],
                ((each["metadata"] or {}).get("event_payload") or {}).get("delivery_id"),
            )
            for each in messages
        ),
    )
