"""Whether volunteers can be reached: tests of it (pings), and who wants no more messages.

A ping asks for a sign of life and nothing else. Its answer code comes from the same sequence as the
offers', so that no answer can mean two things. What comes late counts: it is a sign of life.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment import duty, openings
from services.assignment.loop import ANSWERS, UnknownDistrict
from shared import codes, outbox
from shared.database import Row, column, execute, now, sql
from shared.districts import District, why_not
from shared.events import (
    NOT_SENT,
    OfferedVolunteer,
    PingAnswered,
    PingedVolunteer,
    PingUnreachable,
    SmsBudgetRunLow,
    VolunteerPinged,
    VolunteerStopped,
)
from shared.hearing import ALL, HeardUntil
from shared.policy import DAY_ENDS

Sign = PingAnswered | PingUnreachable | VolunteerStopped | SmsBudgetRunLow

log = structlog.get_logger("reach")

# How many of a district the sweep pings at one turn: a gateway takes so many in seconds, and an
# alert that comes meanwhile does not wait behind a whole district.
PINGED_AT_ONCE = 20


# --- asking ---------------------------------------------------------------------------------------

# Who has switched off duty or is on leave has asked to be left alone; who wants no messages gets
# none. Weekly times do not count: an answer has a day's time, and is no work.
_CAN_BE_PINGED = """
    v.district = ANY (CAST(:districts AS text[]))
    AND v.reachable AND (v.phone IS NOT NULL OR v.email IS NOT NULL)
    AND (v.off_until IS NULL OR v.off_until <= now())
    AND NOT EXISTS (SELECT 1 FROM pings p WHERE p.volunteer_id = v.id AND p.state = 'asked')
"""
_CHOOSE = sql(f"""
    SELECT v.id, v.phone IS NOT NULL AND v.channel IS DISTINCT FROM 'email'
                 AND NOT 'sms' = ANY (v.stopped) AS by_sms
    FROM volunteers v
    WHERE {_CAN_BE_PINGED}
      AND CASE WHEN CAST(:only AS uuid[]) IS NULL THEN v.on_duty
               ELSE v.id = ANY (CAST(:only AS uuid[])) END
      AND (CAST(:quiet AS interval) IS NULL OR v.last_reached_at IS NULL
           OR v.last_reached_at < now() - CAST(:quiet AS interval))
    ORDER BY v.id
""")  # noqa: S608 - composed of constants


@dataclass(frozen=True)
class Chosen:
    """Who would be pinged, and how many of them by SMS (one segment each) first."""

    ids: list[UUID]
    by_sms: int


async def choose(
    session: AsyncSession,
    *,
    districts: Iterable[str],
    only: Sequence[UUID] | None = None,
    quiet: timedelta | None = None,
) -> Chosen:
    """Whom a test would ask: all who can be, or ``only`` these, whether on duty or not.

    Nobody who is away, wants no messages or has an open ping. ``quiet``: only those of whom nothing
    was heard for so long.
    """
    rows = await execute(
        session,
        _CHOOSE,
        {"districts": list(districts), "only": list(only) if only is not None else None,
         "quiet": quiet},
    )  # fmt: skip
    return Chosen([row.id for row in rows], sum(row.by_sms for row in rows))


# One at a time: with an older snapshot a second one would ask again whoever has just answered.
_ALONE = sql("SELECT pg_advisory_xact_lock(hashtextextended('jangkau.pings', 0))")
_ALONE_OR_NOT_AT_ALL = sql(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('jangkau.pings', 0)) AS alone"
)
_CODES = sql("SELECT nextval('offer_codes') FROM generate_series(1, CAST(:count AS int))")
_PING = sql("""
    WITH made AS (
        INSERT INTO pings (id, volunteer_id, district, answer_code, respond_by, drill)
        SELECT w.id, v.id, v.district, w.answer_code, now() + CAST(:within AS interval),
               CAST(:drill AS boolean)
        FROM jsonb_to_recordset(CAST(:wanted AS jsonb)) AS w
             (id uuid, volunteer_id uuid, answer_code text)
        JOIN volunteers v ON v.id = w.volunteer_id
        ORDER BY v.id
        ON CONFLICT (volunteer_id) WHERE state = 'asked' DO NOTHING
        RETURNING id, volunteer_id, district, answer_code, respond_by
    )
    SELECT made.id, made.volunteer_id, made.district, made.answer_code, made.respond_by,
           v.name, v.phone, v.email, v.language, v.channel
    FROM made JOIN volunteers v ON v.id = made.volunteer_id ORDER BY made.volunteer_id
""")


async def ping(
    session: AsyncSession,
    *,
    districts: Iterable[str],
    only: Sequence[UUID],
    within: timedelta,
    drill: bool = False,
) -> int:
    """Ask these volunteers for a sign of life until ``within`` from now; returns how many.

    Whoever has an open ping, or cannot be pinged any more, is not asked.
    """
    await execute(session, _ALONE)
    chosen = await choose(session, districts=districts, only=only)
    return await _ping(session, chosen.ids, within=within, drill=drill)


async def _ping(
    session: AsyncSession, volunteers: Sequence[UUID], *, within: timedelta, drill: bool = False
) -> int:
    if not volunteers:
        return 0
    numbers = column(await execute(session, _CODES, {"count": len(volunteers)}))
    wanted = [
        {"id": str(uuid7()), "volunteer_id": str(id_), "answer_code": codes.numbered_code(number)}
        for id_, number in zip(volunteers, numbers, strict=True)
    ]
    values = {"wanted": json.dumps(wanted), "within": within, "drill": drill}
    made = await execute(session, _PING, values)
    moment = await now(session)
    await outbox.publish(session, [_pinged(row, moment, drill=drill) for row in made])
    return len(made)


def _pinged(row: Row, moment: datetime, *, drill: bool) -> VolunteerPinged:
    data = PingedVolunteer(
        ping_id=row.id,
        answer_code=row.answer_code,
        respond_by=row.respond_by,
        volunteer=OfferedVolunteer(
            id=row.volunteer_id,
            name=row.name,
            phone=row.phone,
            email=row.email,
            language=row.language,
            channel=row.channel,
        ),
    )
    event: VolunteerPinged = VolunteerPinged.of(
        data, case_id=row.volunteer_id, district=row.district, time=moment, drill=drill
    )
    return event


# --- when a moment has come -----------------------------------------------------------------------

_END = sql("""
    UPDATE pings SET state = 'unanswered', ended_at = respond_by
    WHERE id IN (SELECT id FROM pings
                 WHERE state = 'asked' AND respond_by <= now() - CAST(:behind AS interval)
                   -- Its answer may be among what waits.
                   AND NOT EXISTS (SELECT 1 FROM set_aside AS aside
                                   WHERE aside.consumer = :answers
                                     AND aside.case_id = pings.volunteer_id)
                 ORDER BY respond_by LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED)
""")
# Nothing was heard of them since, and they have not been asked since; nor are they new.
_QUIET = sql(f"""
    SELECT v.id FROM volunteers v
    WHERE {_CAN_BE_PINGED} AND v.on_duty
      AND coalesce(v.last_reached_at, v.created_at) < now() - CAST(:every AS interval)
      AND NOT EXISTS (SELECT 1 FROM pings p WHERE p.volunteer_id = v.id
                      AND p.asked_at > now() - CAST(:every AS interval))
    ORDER BY coalesce(v.last_reached_at, v.created_at), v.id
    LIMIT :most
""")  # noqa: S608 - composed of constants


async def end_overdue(session: AsyncSession, *, heard: HeardUntil = ALL) -> None:
    """Pings whose time is over are unanswered, as far as answers have been ``heard``; an answer
    counts all the same when it comes."""
    await execute(session, _END, {"behind": heard.behind(), "answers": ANSWERS})


async def ping_the_quiet(session: AsyncSession, *, districts: Mapping[str, District]) -> int:
    """Ping, as each district's policy says, some of those of whom nothing was heard for long; by
    day, and one replica at a time. Returns how many."""
    moment = await now(session)
    due = [one for one in districts.values() if is_time(one, moment)]
    if not due or not (await execute(session, _ALONE_OR_NOT_AT_ALL))[0].alone:
        return 0
    asked = 0
    for district in due:
        messages = district.policy.messages
        values = {
            "districts": [district.code],
            "every": messages.ping_every,
            "most": PINGED_AT_ONCE,
        }
        quiet = column(await execute(session, _QUIET, values))
        asked += await _ping(session, quiet, within=messages.ping_within)
    return asked


def is_time(district: District, moment: datetime) -> bool:
    """Whether the district tests by itself, and this is the time of its day for that."""
    messages = district.policy.messages
    local: time = moment.astimezone(ZoneInfo(district.timezone)).time()
    return messages.ping_every is not None and messages.ping_at <= local < DAY_ENDS


# --- what came of it ------------------------------------------------------------------------------

_DISTRICTS = sql("""
    SELECT district FROM volunteers WHERE id = ANY (CAST(:ids AS uuid[]))
    UNION
    SELECT v.district FROM volunteers v JOIN pings p ON p.volunteer_id = v.id
    WHERE p.id = ANY (CAST(:ids AS uuid[]))
""")
_ANSWERED = sql("""
    WITH answered AS (
        UPDATE pings
        SET state = 'answered', words = coalesce(:words, words), reason = NULL,
            ended_at = CASE WHEN state = 'answered' THEN ended_at
                            ELSE CAST(:at AS timestamptz) END
        WHERE id = :ping
        RETURNING volunteer_id
    )
    UPDATE volunteers v
    SET last_reached_at = greatest(v.last_reached_at, least(CAST(:at AS timestamptz), now()))
    FROM answered WHERE v.id = answered.volunteer_id
""")
# An answer is stronger than a gateway's word.
_UNREACHABLE = sql("""
    UPDATE pings SET state = :state, reason = :reason, ended_at = CAST(:at AS timestamptz)
    WHERE id = :ping AND state IN ('asked', 'unanswered')
""")
_STOPPED = sql("""
    UPDATE volunteers v
    SET stopped = array_remove(v.stopped, CAST(:channel AS text))
                  || CASE WHEN CAST(:stopped AS boolean) THEN ARRAY[CAST(:channel AS text)]
                          ELSE '{}' END,
        reachable = :reachable,
        last_reached_at = greatest(v.last_reached_at, least(CAST(:at AS timestamptz), now()))
    WHERE v.id = :volunteer
    RETURNING v.district, v.available
""")
_AVAILABLE = sql("SELECT available FROM volunteers WHERE id = :volunteer")


async def districts_of(session: AsyncSession, signs: Sequence[Sign]) -> list[str]:
    """The home districts of those whom these events are about: whose turn must be held."""
    ids = [
        sign.data.volunteer_id if isinstance(sign, VolunteerStopped) else sign.data.ping_id
        for sign in signs
        if not isinstance(sign, SmsBudgetRunLow)
    ]
    return column(await execute(session, _DISTRICTS, {"ids": ids}))


async def take(
    session: AsyncSession, signs: Sequence[Sign], *, districts: Mapping[str, District]
) -> None:
    """Keep what was heard of volunteers. In the turn of their districts (:func:`districts_of`).

    Raises:
        UnknownDistrict: whoever has written STOP is of a district without a folder here.
    """
    for sign in signs:
        match sign:
            case PingAnswered(data=answer):
                values = {"ping": answer.ping_id, "words": answer.words, "at": sign.time}
                await execute(session, _ANSWERED, values)
            case PingUnreachable(data=unreached):
                await _unreachable(session, unreached.ping_id, unreached.reason, at=sign.time)
            case VolunteerStopped():
                await _stopped(session, sign, districts)
            case SmsBudgetRunLow(data=budget):
                log.warning(
                    "sms_budget.run_low",
                    district=sign.district,
                    day=budget.day,
                    used=budget.used,
                    budget=budget.budget,
                )


async def _unreachable(session: AsyncSession, ping_id: UUID, reason: str, *, at: datetime) -> None:
    """A test that was not even sent says nothing about the number."""
    state = "unanswered" if reason in NOT_SENT else "unreachable"
    values = {"ping": ping_id, "state": state, "reason": reason, "at": at}
    await execute(session, _UNREACHABLE, values)


async def _stopped(
    session: AsyncSession, event: VolunteerStopped, districts: Mapping[str, District]
) -> None:
    said = event.data
    values = {
        "volunteer": said.volunteer_id,
        "channel": said.channel,
        "stopped": said.stopped,
        "reachable": said.reachable,
        "at": event.time,
    }
    for row in await execute(session, _STOPPED, values):
        if row.district not in districts:
            raise UnknownDistrict(why_not(districts, row.district))
        timezones = {row.district: districts[row.district].timezone}
        await duty.recompute(session, [said.volunteer_id], timezones=timezones)
        (after,) = await execute(session, _AVAILABLE, {"volunteer": said.volunteer_id})
        if after.available and not row.available:
            await openings.announce(session, [row.district])


# --- the newest test ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reach:
    """A volunteer's newest test, or none (``state`` None). Holds personal data.

    ``words`` are their own; ``reason`` says why they could not be reached.
    """

    id: UUID
    district: str
    name: str
    phone: str | None
    email: str | None
    stopped: list[str]
    reachable: bool
    last_reached_at: datetime | None
    state: str | None
    drill: bool | None
    asked_at: datetime | None
    respond_by: datetime | None
    ended_at: datetime | None
    words: str | None
    reason: str | None


_NEWEST = sql("""
    SELECT v.id, v.district, v.name, v.phone, v.email, v.stopped, v.reachable, v.last_reached_at,
           p.state, p.drill, p.asked_at, p.respond_by, p.ended_at, p.words, p.reason
    FROM volunteers v
    LEFT JOIN LATERAL (
        SELECT state, drill, asked_at, respond_by, ended_at, words, reason
        FROM pings WHERE volunteer_id = v.id ORDER BY pings.asked_at DESC, pings.id DESC LIMIT 1
    ) AS p ON true
    WHERE CAST(:district AS text) IS NULL OR v.district = :district
    -- Whom somebody should call comes first.
    ORDER BY array_position(ARRAY['unreachable', 'unanswered', 'asked', 'answered'], p.state),
             v.name, v.id
""")


async def newest(session: AsyncSession, *, district: str | None = None) -> list[Reach]:
    """What the newest test of each volunteer came to; who was never tested comes last."""
    return [Reach(**dict(row)) for row in await execute(session, _NEWEST, {"district": district})]
