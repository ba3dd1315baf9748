"""What came of a demo: counted in the databases and in the public feed, never assumed."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from aiokafka import AIOKafkaConsumer

from ops.embedded import Stack
from ops.gateway import Gateway
from services.assignment import audit
from shared import topics
from shared.database import Row
from shared.settings import SERVICES

LOOKS = 5
# In these a case has come to an end, or to a person.
ENDED = ("accepted", "arrived", "closed", "escalated")
GONE_OUT = ("sent", "delivered")


@dataclass
class Percentiles:
    """Milliseconds."""

    p50: float | None
    p99: float | None


@dataclass
class Result:
    """What came of the reports.

    ``lost`` counts reports that were answered 202 and are missing from a database or from the
    public feed, or whose offers have no message. ``late_next_offer_ms`` is how long after a
    deadline the next volunteer's message was there (or the loop had found that nobody is free).

    ``delivered``, ``unknown`` and ``failed`` are messages that ended so; ``segments`` is what went
    out by SMS; ``attempts`` counts calls by channel and outcome. ``unexplained`` counts messages
    whose calls do not follow from one another, or of which the gateway knows otherwise.
    """

    broker: str
    reports: int
    accepted_reports: int
    refused: int
    cases: int
    offers: int
    messages_sent: int
    waiting: int
    escalated: int
    dead_letters: int
    lost: int
    report_to_message_ms: Percentiles
    seconds: float
    cases_per_second: float
    states: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    declined: int = 0
    expired: int = 0
    reoffers: int = 0
    answers: int = 0
    double_accepted: int = 0
    over_capacity: int = 0
    asked_twice: int = 0
    unfinished: int = 0
    late_next_offer_ms: Percentiles = field(default_factory=lambda: Percentiles(None, None))
    delivered: int = 0
    unknown: int = 0
    failed: int = 0
    segments: int = 0
    attempts: dict[str, dict[str, int]] = field(default_factory=dict)
    unexplained: int = 0
    restarts: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))

    @property
    def broken(self) -> bool:
        """Whether a promise was broken."""
        return bool(
            self.lost
            or self.dead_letters
            or self.double_accepted
            or self.over_capacity
            or self.asked_twice
            or self.unfinished
            or self.unexplained
        )


class PublicFeed:
    """Reads the public feed as any agency would, from the beginning."""

    def __init__(self, stack: Stack) -> None:
        self.settings = stack.settings()
        self.versions: dict[str, list[int]] = {}
        self._seen: set[str] = set()

    async def read(self) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(
            self.settings.topic_prefix + topics.PUBLIC_CASES.name,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self.settings.kafka_fetch_max_wait_ms,
        )
        await consumer.start()
        try:
            async for record in consumer:
                event = json.loads(record.value)
                if event["id"] not in self._seen:
                    self._seen.add(event["id"])
                    self.versions.setdefault(event["subject"], []).append(event["data"]["version"])
        finally:
            await consumer.stop()

    def complete(self, case_id: str, version: int) -> bool:
        """Whether the versions of a case arrived as 1..version, in order."""
        return self.versions.get(case_id) == list(range(1, version + 1))

    @property
    def count(self) -> int:
        """How many events have been read."""
        return len(self._seen)


@dataclass
class Played:
    """What was sent in, and what the senders were told."""

    reports: int
    accepted: dict[str, str] = field(default_factory=dict)  # idempotency key -> case id
    refused: list[str] = field(default_factory=list)
    answers: int = 0
    answered: bool = False  # volunteers answered: every case has to end
    seconds: float = 0.0
    gateway: Gateway | None = None


async def count(stack: Stack, played: Played, feed: PublicFeed) -> Result:
    """Compare what was promised with what is there.

    Cases behind an escalation go on while it is counted, and databases and feed are read one after
    the other: what looks broken is looked at again, and only what stays broken is.
    """
    for _ in range(LOOKS):
        result = await _count(stack, played, feed)
        if not result.broken:
            break
        await asyncio.sleep(1)
    return result


async def _count(stack: Stack, played: Played, feed: PublicFeed) -> Result:
    reports = {
        str(row.case_id) for row in await stack.rows("intake", "SELECT case_id FROM reports")
    }
    cases = {
        str(row.id): row
        for row in await stack.rows(
            "assignment", "SELECT id, version, state, escalated_at FROM cases"
        )
    }
    offers = await stack.rows("assignment", _OFFERS)
    messages = await stack.rows(
        "notification",
        """SELECT offer_id, case_id, recipient, purpose, state, attempts, created_at
           FROM messages WHERE purpose IN ('offer', 'assigned')""",
    )
    missing = _missing(played, reports, cases, offers, messages, feed)
    unfinished = [id_ for id_, case in cases.items() if not _ended(case)]
    result = Result(
        broker=stack.broker,
        reports=played.reports,
        accepted_reports=len(played.accepted),
        refused=len(played.refused),
        cases=len(cases),
        offers=len(offers),
        messages_sent=sum(m.state in GONE_OUT for m in messages if m.purpose == "offer"),
        waiting=sum(case.state == "waiting" for case in cases.values()),
        escalated=await _number(stack, "assignment", _ESCALATED),
        dead_letters=sum([await _number(stack, name, _PARKED) for name in SERVICES]),
        lost=len(missing),
        report_to_message_ms=await _report_to_message(stack),
        seconds=round(played.seconds, 2),
        cases_per_second=round(len(cases) / played.seconds, 1),
        states=_counted(case.state for case in cases.values()),
        restarts=sum(stack.restarts.values()),
        answers=played.answers,
        problems=[
            *played.refused[:5],
            *(f"lost: case {case_id}" for case_id in missing[:5]),
        ],
    )
    called_off = {row.offer_id for row in await stack.rows("assignment", _CALLED_OFF)}
    _count_the_loop(result, offers, [m for m in messages if m.offer_id not in called_off])
    result.accepted = await _number(stack, "assignment", _ACCEPTED)
    result.double_accepted = await _number(stack, "assignment", _DOUBLE)
    result.over_capacity = await _number(stack, "assignment", _OVER_CAPACITY)
    result.over_capacity += len(await stack.rows("assignment", audit.MISCOUNTED))
    await _count_the_calls(result, stack, played.gateway)
    if played.answered:
        result.unfinished = len(unfinished)
        result.problems += [f"not ended: case {case_id}" for case_id in unfinished[:5]]
    return result


def _ended(case: Row) -> bool:
    return case.state in ENDED or case.escalated_at is not None


def _missing(
    played: Played,
    reports: set[str],
    cases: Mapping[str, Row],
    offers: Sequence[Row],
    messages: Sequence[Row],
    feed: PublicFeed,
) -> list[str]:
    """The accepted reports whose way ends somewhere."""
    told = {str(message.offer_id): message.state for message in messages}
    untold = {
        str(offer.case_id)
        for offer in offers
        # Whoever is still asked must have been reached; whoever no longer is, at least noted.
        if told.get(str(offer.id)) is None
        or (
            offer.state == "offered"
            and not played.answered
            and told[str(offer.id)] not in (*GONE_OUT, "unknown")
        )
    }
    return [
        case_id
        for case_id in played.accepted.values()
        if case_id not in reports
        or case_id not in cases
        or case_id in untold
        or not feed.complete(case_id, cases[case_id].version)
    ]


_OFFERS = "SELECT id, case_id, volunteer_id, state, made_at, respond_by, ended_at FROM offers"
# Who was called off because their hands were full may be asked again for the same case.
_CALLED_OFF = "SELECT offer_id FROM case_log WHERE what = 'called_off'"
_ESCALATED = "SELECT count(DISTINCT case_id) AS n FROM case_log WHERE what = 'escalated'"
_PARKED = "SELECT count(*) AS n FROM dead_letters WHERE state = 'parked'"
_ACCEPTED = """
    SELECT count(DISTINCT case_id) AS n FROM case_log WHERE what IN ('accepted', 'assigned')
"""
# Who had a case from when to when. By the order of the stories, as an offer that a coordinator
# gives out again begins anew; what happens to a volunteer's cases happens in the district's turn.
_HELD = """
    WITH held AS (
        SELECT l.case_id, l.offer_id, l.id AS since,
               (SELECT min(e.id) FROM case_log e
                WHERE e.case_id = l.case_id AND e.id > l.id
                  AND (e.what LIKE 'closed:%'
                       OR e.offer_id = l.offer_id
                          AND e.what IN ('released', 'lapsed', 'handed_back', 'unreachable'))
               ) AS until
        FROM case_log l WHERE l.what IN ('accepted', 'assigned')
    )
"""
# Two who had the same case at the same time: the second got it before the first had lost it.
_DOUBLE = f"""
    {_HELD}
    SELECT count(DISTINCT a.case_id) AS n
    FROM held a JOIN held b ON a.case_id = b.case_id AND a.since < b.since
    WHERE a.until IS NULL OR a.until > b.since
"""  # noqa: S608 - composed of constants


# Volunteers who ever had more real cases in hand than they can take.
_OVER_CAPACITY = f"""
    {_HELD}, real AS (
        SELECT held.since, held.until, o.volunteer_id, v.capacity
        FROM held JOIN offers o ON o.id = held.offer_id AND NOT o.drill
                  JOIN volunteers v ON v.id = o.volunteer_id
    )
    SELECT count(DISTINCT volunteer_id) AS n FROM (
        SELECT a.volunteer_id
        FROM real a JOIN real b ON b.volunteer_id = a.volunteer_id AND b.since <= a.since
                                AND (b.until IS NULL OR b.until > a.since)
        GROUP BY a.volunteer_id, a.since, a.capacity HAVING count(*) > a.capacity
    ) AS over
"""  # noqa: S608 - composed of constants


async def _number(stack: Stack, service: str, query: str) -> int:
    (row,) = await stack.rows(service, query)
    return int(row.n)


async def _report_to_message(stack: Stack) -> Percentiles:
    """From the report to the first message of its case."""
    (timing,) = await stack.rows(
        "notification",
        """SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50,
                  percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99
           FROM (SELECT 1000 * extract(epoch FROM min(sent_at) - min(reported_at))::float AS ms
                 FROM messages WHERE purpose = 'offer' AND sent_at IS NOT NULL
                 GROUP BY case_id) AS first""",
    )
    return Percentiles(*(round(ms, 1) if ms is not None else None for ms in timing))


def _count_the_loop(result: Result, offers: Sequence[Row], messages: Sequence[Row]) -> None:
    states = _counted(offer.state for offer in offers)
    result.declined, result.expired = states.get("declined", 0), states.get("expired", 0)
    first: dict[Any, datetime] = {}
    for offer in sorted(offers, key=lambda offer: offer.made_at):
        first.setdefault(offer.case_id, offer.made_at)
    result.reoffers = sum(offer.made_at > first[offer.case_id] for offer in offers)
    # What was never tried was never asked.
    asked = _counted(
        (m.case_id, m.recipient) for m in messages if m.purpose == "offer" and m.attempts
    )
    result.asked_twice = sum(count > 1 for count in asked.values())
    late = sorted(_lateness(offers, messages))
    if late:
        result.late_next_offer_ms = Percentiles(
            round(late[len(late) // 2], 1), round(late[int(len(late) * 0.99)], 1)
        )


def _lateness(offers: Sequence[Row], messages: Sequence[Row]) -> list[float]:
    """For each silent volunteer, the milliseconds from the deadline to what came next."""
    written = {message.offer_id: message.created_at for message in messages}
    made: dict[Any, list[datetime]] = defaultdict(list)
    for offer in offers:
        if offer.id in written:
            made[offer.case_id, offer.made_at].append(written[offer.id])
    return [
        1000
        * (
            min(made.get((offer.case_id, offer.ended_at), [offer.ended_at])) - offer.respond_by
        ).total_seconds()
        for offer in offers
        if offer.state == "expired"
    ]


_CALLS = """
    SELECT m.id, m.state AS message_state, m.send_before, m.purpose, a.channel, a.state, a.receipt,
           a.started_at, a.segments
    FROM messages m LEFT JOIN attempts a ON a.message_id = m.id
    ORDER BY m.id, a.started_at
"""


async def _count_the_calls(result: Result, stack: Stack, gateway: Gateway | None) -> None:
    """Whether every call to a provider follows from the one before, and the gateway agrees."""
    calls: dict[Any, list[Row]] = defaultdict(list)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in await stack.rows("notification", _CALLS):
        calls[row.id] += [row] if row.channel else []
        if row.channel:
            counts[row.channel][row.state] += 1
            result.segments += row.segments
    result.attempts = {channel: dict(states) for channel, states in sorted(counts.items())}
    states = await stack.rows(
        "notification", "SELECT state, count(*) AS n FROM messages GROUP BY state"
    )
    by_state = {row.state: row.n for row in states}
    result.delivered = by_state.get("delivered", 0)
    result.unknown, result.failed = by_state.get("unknown", 0), by_state.get("failed", 0)
    odd = {id_: why for id_, made in calls.items() if (why := unexplained(made, gateway, str(id_)))}
    result.unexplained = len(odd)
    result.problems += [f"message {id_}: {why}" for id_, why in list(odd.items())[:5]]


def unexplained(made: Sequence[Row], gateway: Gateway | None, message_id: str) -> str | None:
    """What is odd about the calls that were made for one message, in their order; None if nothing.

    ``made``: channel, state, receipt, started_at, send_before. The gateway's truth is about sms.
    """
    for call, after in pairwise(made):
        if call.state == "sent" and after.channel == call.channel and call.channel != "sandbox":
            return "sent again by the channel that had taken it"
        if call.state == "unknown" and after.channel == call.channel and call.channel != "sandbox":
            return "sent again by a channel that may have taken it"
    if any(call.started_at >= call.send_before for call in made):
        return "sent after its deadline"
    if gateway is None:
        return None
    ours = [call for call in made if call.channel == "sms"]
    if gateway.accepted[message_id] > 1:
        return "it reached a telephone twice"
    if gateway.calls[message_id] > len(ours):
        return "the gateway was called more often than is noted"
    if any(c.state == "sent" for c in ours) and not gateway.accepted[message_id]:
        return "noted as sent, but the gateway has not taken it"
    if gateway.accepted[message_id] and not any(c.state in ("sent", "unknown") for c in ours):
        return "the gateway has taken it, but it is noted as failed"
    return None


def _counted(values: Any) -> dict[Any, int]:
    counts: dict[Any, int] = defaultdict(int)
    for value in values:
        counts[value] += 1
    return dict(counts)
