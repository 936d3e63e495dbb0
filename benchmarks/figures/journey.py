"""One sign-up from the request to its last effect: on an idle cluster, and under load."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median, quantiles
from typing import Final

from benchmarks.bench import Bench, Program
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.following import EFFECTS, Following, Journey
from benchmarks.journeys import measured, over_lines
from benchmarks.peers import dbos, omni_box
from benchmarks.processors import machine_s, used_s
from benchmarks.signing_up import (
    OURS,
    SignUp,
    arriving,
    as_fast_as_possible,
    cheap_hash,
    drained,
    followed,
    one_by_one,
    through_gateway,
    untroubled,
)
from benchmarks.topics import fresh_topic

_FLOOR: Final = "benchmarks.programs.bare_journey"
_OF_THE_HIGHEST: Final = 0.8


def percentile(values: Sequence[float], hundredths: int) -> float:
    return quantiles(values, n=100, method="inclusive")[hundredths - 1]


def figures_of(journeys: Sequence[Journey]) -> dict[str, float]:
    whole = [each.took_ms() for each in journeys]
    parts = {
        f"{effect}_p50_ms": median(each.took_ms(effect) for each in journeys) for effect in EFFECTS
    }
    answered = median(each.answered_at_s - each.began_at_s for each in journeys) * 1_000
    return {
        **{f"p{each}_ms": percentile(whole, each) for each in (50, 95, 99)},
        "answered_p50_ms": answered,
        "after_answer_p50_ms": median(
            each.took_ms() - (each.answered_at_s - each.began_at_s) * 1_000 for each in journeys
        ),
        **parts,
    }


def _count(bench: Bench) -> int:
    return 200 if bench.full else 30


async def ours(bench: Bench) -> Values:
    await untroubled(bench)
    async with through_gateway(bench) as sign_up, followed(bench) as follow:
        return figures_of(await one_by_one(sign_up, follow, _count(bench)))


async def ours_without_hash(bench: Bench) -> Values:
    async with cheap_hash(bench):
        return await ours(bench)


async def floor(bench: Bench) -> Values:
    async with AsyncExitStack() as stack:
        topics = [
            await stack.enter_async_context(fresh_topic(bench, stem))
            for stem in ("user", "task", "account")
        ]
        urls: dict[str, str] = {}
        lines: dict[str, str] = {}
        for name in ("users", "accounts", "audit", "notification"):
            urls[name] = await bench.database(f"{name}_service")
            environment = {
                "DATABASE_URL": urls[name],
                "KAFKA_BOOTSTRAP": bench.cluster.kafka_bootstrap,
                "SLACK_URL": bench.cluster.url("slack-stand-in"),
                "TOPICS": ",".join(topics),
            }
            program = await stack.enter_async_context(bench.program([_FLOOR, name], environment))
            lines[name] = await program.line()
            if name == "users":
                await program.line()
        sign_up = await stack.enter_async_context(over_lines(int(lines["users"]), connections=1))
        follow = await stack.enter_async_context(followed(bench, urls))
        return figures_of(await one_by_one(sign_up, follow, _count(bench)))


WITHOUT_HASH: Final = "ours, without the password hash"
FLOOR: Final = "bare asyncpg and aiokafka, no hash, no HTTP"

JOURNEY: Final = Figure(
    name="journey",
    title="The journey of one sign-up",
    work="One sign-up at a time on an idle cluster: from sending it to the gateway until the"
    " account, both tasks, the audit record and the Slack message exist. 30 sign-ups, in full runs"
    " 200.",
    metrics=[
        Metric("p50_ms", "ms", "from sending to the last effect"),
        Metric("p95_ms", "ms", "from sending to the last effect"),
        Metric("p99_ms", "ms", "from sending to the last effect"),
        Metric("after_answer_p50_ms", "ms", "from the answer to the last effect"),
        Metric("answered_p50_ms", "ms", "from sending to the answer"),
        *(Metric(f"{each}_p50_ms", "ms", f"from sending to {each}") for each in EFFECTS),
    ],
    sides=[
        Side("ours", Kind.OURS, ours),
        Side(WITHOUT_HASH, Kind.OURS, ours_without_hash),
        Side(
            FLOOR,
            Kind.FLOOR,
            floor,
            does_less="the same commits and hops, in four processes on the same tables; no gateway,"
            " no HTTP except Slack's, no validation, no consumer groups, no relay that reads the"
            " outbox",
        ),
    ],
    goals=[
        Goal("p50_ms", at_most=2.0, against=FLOOR, side=WITHOUT_HASH),
        Goal("p50_ms", at_most=30, side=WITHOUT_HASH),
    ],
    needs_services=True,
)


def _p95_by_second(journeys: Sequence[Journey]) -> Sequence[float]:
    """Return the p95, in ms, of the journeys that began in each second."""
    began_s = journeys[0].began_at_s
    seconds: dict[int, list[float]] = defaultdict(list)
    for each in journeys:
        seconds[int(each.began_at_s - began_s)].append(each.took_ms())
    return [percentile(took_ms, 95) for took_ms in seconds.values() if len(took_ms) > 1]


_SINGLY_PER_S: Final = 25
# What one sign-up took when this figure was begun, and sign-ups arrived singly.
_ONCE_MS: Final = 41.0


async def _processor_ms(
    bench: Bench, users: Program, sign_up: SignUp, follow: Following, for_s: float
) -> float:
    """Return the processor time of all our processes for a sign-up, when they arrive singly."""
    running = bench.cluster.processes()
    others = {*OURS, "slack-stand-in"} - {"users"}
    pids = [users.pid, *(running[name].pid for name in others)]
    began_s = sum(map(used_s, pids))
    await arriving(sign_up, follow, per_s=_SINGLY_PER_S, for_s=for_s, followed_per_s=1)
    await drained(bench)
    return 1_000 * (sum(map(used_s, pids)) - began_s) / (_SINGLY_PER_S * for_s)


async def under_load(bench: Bench) -> Values:
    for_s = 60.0 if bench.full else 8.0
    async with (
        cheap_hash(bench) as users,
        through_gateway(bench) as sign_up,
        # Looked for less often, because looking is load too.
        followed(bench, every_s=0.01) as follow,
    ):
        idle = await one_by_one(sign_up, follow, 2 * _count(bench))
        most = await as_fast_as_possible(sign_up, follow, senders=16, for_s=3)
        values = {
            "idle_p95_ms": percentile([each.took_ms() for each in idle], 95),
            "highest_rate_per_s": most,
            "singly_processor_ms": await _processor_ms(bench, users, sign_up, follow, for_s / 2),
        }
        for rate in (50, 200):
            await drained(bench)
            per_s = min(rate, _OF_THE_HIGHEST * most)
            busy_s, began_s = machine_s(), time.monotonic()
            journeys = await arriving(sign_up, follow, per_s=per_s, for_s=for_s)
            last = journeys[-1]
            busy = (machine_s() - busy_s) / (time.monotonic() - began_s)
            await drained(bench)
            by_second = _p95_by_second(journeys)
            values |= {
                f"rate_{rate}_per_s": per_s,
                f"p95_at_{rate}_ms": percentile([each.took_ms() for each in journeys], 95),
                f"typical_second_at_{rate}_ms": median(by_second),
                f"worst_second_at_{rate}_ms": max(by_second),
                f"busy_at_{rate}": busy,
                f"backlog_at_{rate}_s": time.monotonic() - last.began_at_s,
            }
    return values


UNDER_LOAD: Final = Figure(
    name="journey-under-load",
    title="The journey while others sign up",
    work="The same journey, without the password hash, while 50 and then 200 sign-ups a second"
    " arrive evenly, however long each takes; 8 s for each rate (60 s in full runs). If the machine"
    " does not sustain a rate, it is 80 % of the rate that 16 senders reach that never pause.",
    metrics=[
        Metric("idle_p95_ms", "ms", "from sending to the last effect, one at a time"),
        Metric("highest_rate_per_s", "1/s", "16 senders that never pause", more_is_better=True),
        Metric(
            "singly_processor_ms",
            "ms",
            f"processor time of our processes for a sign-up, at {_SINGLY_PER_S} a second",
        ),
        *(
            metric
            for rate in (50, 200)
            for metric in (
                Metric(f"rate_{rate}_per_s", "1/s", "sign-ups that were sent", more_is_better=True),
                Metric(f"p95_at_{rate}_ms", "ms", "from when it was due to the last effect"),
                Metric(
                    f"typical_second_at_{rate}_ms",
                    "ms",
                    "the p95 of those of one second, median of the seconds",
                ),
                Metric(f"worst_second_at_{rate}_ms", "ms", "the same, the worst of the seconds"),
                Metric(f"busy_at_{rate}", "processors", "busy meanwhile, all processes together"),
                Metric(
                    f"backlog_at_{rate}_s",
                    "s",
                    "from the last sign-up until everything is handled, down to the audit records",
                ),
            )
        ),
    ],
    sides=[Side("ours", Kind.OURS, under_load)],
    goals=[
        Goal("singly_processor_ms", at_most=0.6 * _ONCE_MS),
        Goal("p95_at_50_ms", at_most=4, against_metric="idle_p95_ms"),
        Goal("p95_at_200_ms", at_most=4, against_metric="idle_p95_ms"),
        Goal("backlog_at_200_s", at_most=1),
    ],
    needs_services=True,
    repeats=2,
)


async def _journeys(bench: Bench) -> Values:
    async with cheap_hash(bench), through_gateway(bench) as sign_up:
        return await measured(bench, sign_up)


BESIDE_OTHERS: Final = Figure(
    name="journeys",
    title="Journeys beside omni-box and DBOS",
    work="The journey of a sign-up, without the password hash: 200 (30 in quick runs), one at a"
    " time, and then 32 that are always under way, for 20 s (5 s). The others do the same work"
    " with plain tables: a user, two tasks, an account with its first entry, four audit records and"
    " the Slack message. Our services are stopped meanwhile.",
    metrics=[
        Metric("p50_ms", "ms", "from sending to the last effect, one at a time"),
        Metric("journeys_per_s", "1/s", "complete, 32 under way", more_is_better=True),
        Metric("processor_ms", "ms", "of the whole machine, for one of those"),
    ],
    sides=[
        Side("ours", Kind.OURS, _journeys),
        Side(omni_box.NAME, Kind.PEER, omni_box.journeys, omni_box.DOES_LESS),
        Side(dbos.NAME, Kind.PEER, dbos.journeys, dbos.DOES_LESS),
    ],
    goals=[
        goal
        for peer in (omni_box.NAME, dbos.NAME)
        for goal in (
            Goal("journeys_per_s", at_least=3, against=peer, only_in_full=True),
            Goal("p50_ms", at_most=0.5, against=peer, only_in_full=True),
        )
    ],
    needs_services=True,
)

FIGURES: Final = (JOURNEY, UNDER_LOAD, BESIDE_OTHERS)
