"""What a district decides for itself: its policy, and how `policy.toml` is read and refused."""

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shared.contacts import Email, Phone
from shared.events import COORDINATORS_AT_MOST, Category, Role, Urgency

# By this time of day nobody is asked any more whether they can be reached, nor before that.
DAY_BEGINS, DAY_ENDS = time(6), time(20)
URGENCIES: tuple[Urgency, ...] = get_args(Urgency)
MINUTES_A_DAY = 24 * 60
# Unanswered offers that one volunteer may have at a time, where a policy says nothing: three codes
# can still be told apart on a small telephone (docs/adr/0028).
OPEN_OFFERS = 3

# The keys and list positions that lead to a value: ("answer", "times", 0, "from").
KeyPath = tuple[int | str, ...]


class DistrictError(Exception):
    """A district folder that cannot be used; each line of the text names file, line and key."""


@dataclass(frozen=True)
class Coordinator:
    """Who is told when a case needs a person to decide; `subdistrict` None: of the whole district.

    `phone` is in E.164; at least one of `phone` and `email` is there.
    """

    name: str
    phone: str | None
    email: str | None
    language: str = "id"
    subdistrict: str | None = None


@dataclass(frozen=True)
class Need:
    """What a category asks of a volunteer: one of the roles or one of the trainings.

    Both empty: nothing special.
    """

    roles: tuple[str, ...] = ()
    trainings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerTimes:
    """Other times to answer, by urgency, from `start` up to `end` of the local day.

    A window whose end is before its start goes over midnight.
    """

    start: time
    end: time
    within: Mapping[str, timedelta]

    def covers(self, local: time) -> bool:
        """Whether a local time of day (naive) lies in the window; its end does not."""
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end


@dataclass(frozen=True)
class Messages:
    """How the district's messages go out.

    ``channels`` are tried in this order (empty: the installation's own). ``sms_a_day`` is in
    segments, ``urgent_sms_a_day`` is how many go out at the very most, urgent or not; ``warn_at``
    is the share of the first at which coordinators are told. ``acknowledgements_a_day`` and
    ``news_a_day`` are for one reporter, of all their cases together. ``ping_every``: how
    often volunteers of whom nothing was heard meanwhile are asked for a sign of life.
    """

    channels: tuple[str, ...] = ()
    sms_a_day: int | None = None
    urgent_sms_a_day: int = 5000
    acknowledgements_a_day: int = 3
    news_a_day: int = 10
    warn_at: float = 0.8
    ping_every: timedelta | None = None
    ping_at: time = time(9)
    ping_within: timedelta = timedelta(hours=24)


@dataclass(frozen=True)
class Reports:
    """What becomes of reports when there are very many.

    Beyond ``a_minute`` of the whole district (those of strangers) the duty officer looks first.
    What is held back and that nobody has looked at within ``look_within`` (by urgency) is searched
    for all the same, ``at_once`` of them at a time. Coordinators are told of what is held back
    once in ``tell_every``.
    """

    a_minute: int = 60
    look_within: Mapping[str, timedelta] = field(
        default_factory=lambda: {
            "normal": timedelta(minutes=60),
            "urgent": timedelta(minutes=10),
        }
    )
    at_once: int = 3
    tell_every: timedelta = timedelta(minutes=15)


@dataclass(frozen=True)
class Policy:
    """What a district decides for itself; docs/how-to/policy.md says what each key does.

    Mappings are by urgency, `needs` by category; everything with `_m` is in metres. `steps_m`
    ascends; a step is exhausted when `rounds` times `parallel` volunteers were asked in it.
    `open_offers` is how many offers one volunteer may have that they have not answered yet.
    """

    answer_within: Mapping[str, timedelta]
    answer_times: tuple[AnswerTimes, ...]
    parallel: Mapping[str, int]
    steps_m: tuple[float, ...]
    rounds: int
    first_roles: tuple[str, ...]
    neighbours: tuple[str, ...]
    retry_after: timedelta
    same_distance_m: float
    busy_counts_m: float
    recent: timedelta
    arrive_within: timedelta
    report_within: timedelta
    escalate_after: Mapping[str, timedelta]
    default_capacity: int
    rest: timedelta
    needs: Mapping[str, Need]
    coordinators: tuple[Coordinator, ...]
    messages: Messages = Messages()
    reports: Reports = field(default_factory=Reports)
    open_offers: int = OPEN_OFFERS

    @property
    def radius_m(self) -> float:
        """The last step: nobody farther away is asked."""
        return self.steps_m[-1]

    def respond_within(self, urgency: str, local: time) -> timedelta:
        """How long an offer made at this local time of day (naive) can be answered."""
        for window in self.answer_times:
            if window.covers(local):
                return window.within[urgency]
        return self.answer_within[urgency]

    def coordinators_of(self, subdistrict: str) -> list[Coordinator]:
        """Whom to tell of a case there: those of the subdistrict first, then the district's."""
        own = [one for one in self.coordinators if one.subdistrict == subdistrict]
        return own + [one for one in self.coordinators if one.subdistrict is None]


def parse_policy(text: str, *, file: Path, district: str, subdistricts: Collection[str]) -> Policy:
    """Read the text of a `policy.toml`; the codes are those of `places.toml` beside it.

    Raises:
        DistrictError: with every problem of the file, a line each.
    """
    context = {"district": district, "subdistricts": subdistricts}
    written = parse_toml(text, _PolicyFile, file=file, context=context)
    return Policy(
        answer_within=written.answer.within(),
        answer_times=tuple(
            AnswerTimes(start=row.start, end=row.end, within=row.within())
            for row in written.answer.times
        ),
        parallel={"normal": written.parallel.normal, "urgent": written.parallel.urgent},
        steps_m=tuple(step * 1000 for step in written.search.steps_km),
        rounds=written.search.rounds,
        first_roles=tuple(written.search.first_roles),
        neighbours=tuple(written.search.neighbours),
        retry_after=timedelta(seconds=written.search.retry_after_seconds),
        same_distance_m=written.search.same_distance_km * 1000,
        busy_counts_m=written.search.busy_counts_km * 1000,
        recent=timedelta(days=written.search.recent_days),
        arrive_within=timedelta(minutes=written.acceptance.arrive_within_minutes),
        report_within=timedelta(minutes=written.acceptance.report_within_minutes),
        escalate_after=written.escalation.within(),
        default_capacity=written.volunteer.default_capacity,
        rest=timedelta(hours=written.volunteer.rest_hours),
        needs={
            category: Need(roles=tuple(row.roles), trainings=tuple(row.trainings))
            for category, row in written.needs.items()
        },
        coordinators=tuple(Coordinator(**dict(row)) for row in written.coordinators),
        messages=written.messages.messages(),
        reports=written.reports.reports(),
        open_offers=written.volunteer.open_offers,
    )


# --- the file as it is written -----------------------------------------------------------------


class TomlTable(BaseModel):
    """A table of a district's file."""

    # A misspelt key must be an error, or its default or absence would be found out in the field.
    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, str_strip_whitespace=True
    )


Text = Annotated[str, Field(min_length=1, max_length=100)]


def _refuse(problems: Sequence[tuple[KeyPath, str]]) -> None:
    """Tell pydantic of several problems at once, each with the rest of its key."""
    if problems:
        raise PydanticCustomError("problems", "is refused", {"problems": problems})


def _time_of_day(value: object) -> time:
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return time.fromisoformat(value)
    raise ValueError('must be a time of day such as "21:00"')


def _twice(values: Sequence[str]) -> list[tuple[KeyPath, str]]:
    return [
        ((position,), f"{value} is there twice")
        for position, value in enumerate(values)
        if value in values[:position]
    ]


def _each_once(values: list[str]) -> list[str]:
    _refuse(_twice(values))
    return values


_Minutes = Annotated[float, Field(ge=0.01, le=30 * MINUTES_A_DAY)]
_Kilometres = Annotated[float, Field(ge=0.001, le=1000)]
_TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
_Roles = Annotated[list[Role], AfterValidator(_each_once)]
# Which trainings there are is up to the district: its volunteers file names them.
_Trainings = Annotated[
    list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]], AfterValidator(_each_once)
]


class _ByUrgency(TomlTable):
    normal_minutes: _Minutes
    urgent_minutes: _Minutes

    def minutes_for(self, urgency: Urgency) -> float:
        """The minutes of this urgency."""
        return self.urgent_minutes if urgency == "urgent" else self.normal_minutes

    def within(self) -> dict[str, timedelta]:
        """The times by urgency."""
        return {urgency: timedelta(minutes=self.minutes_for(urgency)) for urgency in URGENCIES}


class _AnswerMinutes(_ByUrgency):
    @field_validator("urgent_minutes")
    @classmethod
    def _not_slower(cls, urgent: float, info: ValidationInfo) -> float:
        normal = info.data.get("normal_minutes")
        if normal is not None and urgent > normal:
            raise ValueError(f"must be at most the {normal:g} of normal_minutes")
        return urgent


class _AnswerTimes(_AnswerMinutes):
    start: Annotated[_TimeOfDay, Field(alias="from")]
    end: Annotated[_TimeOfDay, Field(alias="to")]

    @field_validator("end")
    @classmethod
    def _some_length(cls, end: time, info: ValidationInfo) -> time:
        if end == info.data.get("start"):
            raise ValueError(
                "must be another time than from; a whole day needs no times of its own"
            )
        return end

    def minutes(self) -> set[int]:
        """The minutes of the day in the window, over midnight if need be."""
        first = self.start.hour * 60 + self.start.minute
        last = self.end.hour * 60 + self.end.minute
        if last <= first:
            last += MINUTES_A_DAY
        return {minute % MINUTES_A_DAY for minute in range(first, last)}


class _Answer(_AnswerMinutes):
    times: list[_AnswerTimes] = []

    @field_validator("times")
    @classmethod
    def _apart(cls, times: list[_AnswerTimes]) -> list[_AnswerTimes]:
        _refuse(
            [
                ((later, "from"), f"overlaps answer.times[{earlier}]; only one of them can hold")
                for later, row in enumerate(times)
                for earlier in range(later)
                if row.minutes() & times[earlier].minutes()
            ]
        )
        return times

    def longest(self, urgency: Urgency) -> float:
        """The longest time to answer that this urgency has at any time of day, in minutes."""
        rows: tuple[_AnswerMinutes, ...] = (self, *self.times)
        return max(row.minutes_for(urgency) for row in rows)


class _Parallel(TomlTable):
    normal: Annotated[int, Field(ge=1, le=10)]
    urgent: Annotated[int, Field(ge=1, le=10)]


class _Search(TomlTable):
    steps_km: Annotated[list[_Kilometres], Field(min_length=1, max_length=10)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    first_roles: _Roles
    neighbours: list[str]
    retry_after_seconds: Annotated[float, Field(ge=0.1, le=86400)]
    same_distance_km: _Kilometres
    busy_counts_km: Annotated[float, Field(ge=0, le=1000)]
    recent_days: Annotated[float, Field(gt=0, le=365)]

    @field_validator("steps_km")
    @classmethod
    def _ascending(cls, steps: list[float]) -> list[float]:
        for step, wider in pairwise(steps):
            if wider <= step:
                raise ValueError(f"must ascend, but {wider:g} comes after {step:g}")
        return steps

    @field_validator("neighbours")
    @classmethod
    def _others(cls, codes: list[str], info: ValidationInfo) -> list[str]:
        own = (info.context or {}).get("district")
        itself: list[tuple[KeyPath, str]] = [
            ((position,), f"{code} is this district itself")
            for position, code in enumerate(codes)
            if code == own
        ]
        _refuse(itself + _twice(codes))
        return codes

    @field_validator("same_distance_km")
    @classmethod
    def _within_the_first_step(cls, distance: float, info: ValidationInfo) -> float:
        steps = info.data.get("steps_km")
        if steps and distance > steps[0]:
            raise ValueError(f"must be at most the {steps[0]:g} of the first of steps_km")
        return distance


class _Acceptance(TomlTable):
    arrive_within_minutes: _Minutes
    report_within_minutes: _Minutes


class _Volunteer(TomlTable):
    default_capacity: Annotated[int, Field(ge=1, le=100)]
    open_offers: Annotated[int, Field(ge=1, le=10)] = OPEN_OFFERS
    rest_hours: Annotated[float, Field(ge=0, le=168)]


class _Need(TomlTable):
    roles: _Roles = []
    trainings: _Trainings = []

    @model_validator(mode="after")
    def _something(self) -> "_Need":
        if not self.roles and not self.trainings:
            raise ValueError("needs roles or trainings; without both it would ask for nothing")
        return self


def _known_subdistrict(code: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get("subdistricts", ())
    if code not in known:
        raise ValueError(f"must be a subdistrict of places.toml ({', '.join(sorted(known))})")
    return code


class _Coordinator(TomlTable):
    name: Text
    phone: Phone | None = None
    email: Email | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "id"
    subdistrict: Annotated[str, AfterValidator(_known_subdistrict)] | None = None

    @model_validator(mode="after")
    def _reachable(self) -> "_Coordinator":
        if self.phone is None and self.email is None:
            raise ValueError("needs phone or email, or nobody can be told")
        return self


class _Messages(TomlTable):
    channels: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")]], AfterValidator(_each_once)
    ] = []
    sms_a_day: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    urgent_sms_a_day: Annotated[int, Field(ge=0, le=10_000_000)] = 5000
    acknowledgements_a_day: Annotated[int, Field(ge=0, le=1000)] = 3
    news_a_day: Annotated[int, Field(ge=0, le=1000)] = 10
    warn_at_percent: Annotated[float, Field(ge=1, le=100)] = 80
    ping_every_days: Annotated[float, Field(ge=1, le=366)] | None = None
    ping_at: _TimeOfDay = time(9)
    ping_within_hours: Annotated[float, Field(gt=0, le=168)] = 24

    @model_validator(mode="after")
    def _above_the_budget(self) -> "_Messages":
        # Whoever has a budget above our default means it.
        if "urgent_sms_a_day" not in self.model_fields_set:
            self.urgent_sms_a_day = max(self.urgent_sms_a_day, 2 * (self.sms_a_day or 0))
        if self.urgent_sms_a_day < (self.sms_a_day or 0):
            sentence = f"must be at least the {self.sms_a_day} of sms_a_day"
            _refuse([(("urgent_sms_a_day",), sentence)])
        return self

    @field_validator("ping_at")
    @classmethod
    def _by_day(cls, at: time) -> time:
        if not DAY_BEGINS <= at < DAY_ENDS:
            raise ValueError(
                f"must be between {DAY_BEGINS:%H:%M} and {DAY_ENDS:%H:%M}: nobody is woken for a "
                "test"
            )
        return at

    def messages(self) -> Messages:
        """As the services use it."""
        return Messages(
            channels=tuple(self.channels),
            sms_a_day=self.sms_a_day,
            urgent_sms_a_day=self.urgent_sms_a_day,
            acknowledgements_a_day=self.acknowledgements_a_day,
            news_a_day=self.news_a_day,
            warn_at=self.warn_at_percent / 100,
            ping_every=timedelta(days=self.ping_every_days) if self.ping_every_days else None,
            ping_at=self.ping_at,
            ping_within=timedelta(hours=self.ping_within_hours),
        )


class _Reports(TomlTable):
    a_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    look_within_normal_minutes: _Minutes = 60
    look_within_urgent_minutes: _Minutes = 10
    held_at_once: Annotated[int, Field(ge=1, le=100)] = 3
    tell_every_minutes: _Minutes = 15

    @field_validator("look_within_urgent_minutes")
    @classmethod
    def _not_slower(cls, urgent: float, info: ValidationInfo) -> float:
        normal = info.data.get("look_within_normal_minutes")
        if normal is not None and urgent > normal:
            raise ValueError(f"must be at most the {normal:g} of look_within_normal_minutes")
        return urgent

    def reports(self) -> Reports:
        """As the services use it."""
        return Reports(
            a_minute=self.a_minute,
            look_within={
                "normal": timedelta(minutes=self.look_within_normal_minutes),
                "urgent": timedelta(minutes=self.look_within_urgent_minutes),
            },
            at_once=self.held_at_once,
            tell_every=timedelta(minutes=self.tell_every_minutes),
        )


class _PolicyFile(TomlTable):
    answer: _Answer
    parallel: _Parallel
    search: _Search
    acceptance: _Acceptance
    escalation: _ByUrgency
    volunteer: _Volunteer
    needs: dict[Category, _Need] = {}
    coordinators: list[_Coordinator]
    messages: _Messages = _Messages()
    reports: _Reports = _Reports()

    @field_validator("escalation")
    @classmethod
    def _after_the_first_answer(cls, after: _ByUrgency, info: ValidationInfo) -> _ByUrgency:
        answer: _Answer | None = info.data.get("answer")
        if answer is None:
            return after
        problems: list[tuple[KeyPath, str]] = []
        for urgency in URGENCIES:
            key, longest = f"{urgency}_minutes", answer.longest(urgency)
            if (given := getattr(after, key)) < longest:
                sentence = (
                    f"must be at least {longest:g}, the longest time to answer, not {given:g}"
                )
                problems.append(((key,), sentence))
        _refuse(problems)
        return after

    @field_validator("coordinators")
    @classmethod
    def _one_of_the_district(cls, rows: list[_Coordinator]) -> list[_Coordinator]:
        if all(row.subdistrict is not None for row in rows):
            raise ValueError("needs one of the whole district, that is one without subdistrict")
        counts = Counter(row.subdistrict for row in rows)
        everywhere = counts.pop(None)
        if everywhere + max(counts.values(), default=0) > COORDINATORS_AT_MOST:
            raise ValueError(
                f"has more than {COORDINATORS_AT_MOST} who are told of one case: those of its "
                "subdistrict and those of the whole district"
            )
        return rows


# --- what is wrong, and where ------------------------------------------------------------------

_Model = TypeVar("_Model", bound=TomlTable)


def parse_toml(
    text: str, model: type[_Model], *, file: Path, context: Mapping[str, Any] | None = None
) -> _Model:
    """Check the text of a district's file against its model; `context` is for its validators.

    Raises:
        DistrictError: with every problem of the file, a line each.
    """
    try:
        written = tomllib.loads(text)
    except ValueError as error:  # also a number of thousands of digits
        raise DistrictError(f"{file}: is not valid TOML: {error}") from None
    except RecursionError:
        raise DistrictError(f"{file}: is not valid TOML: its brackets are too deep") from None
    try:
        return model.model_validate(written, context=dict(context or {}))
    except ValidationError as error:
        problems = [problem(text, path, said, file=file) for path, said in _problems(error)]
        raise DistrictError("\n".join(problems)) from None


def problem(text: str, path: KeyPath, sentence: str, *, file: Path) -> str:
    """The one way in which a mistake is told: `FILE: line N: key: sentence`."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"{file}: line {line_of(text, path)}: {key.removeprefix('.')}: {sentence}"


def line_of(text: str, path: KeyPath) -> int:
    """The line (from 1) on which a key of valid TOML is written.

    A key that is not there has the line of its table, or 1. The lines up to a place parse exactly
    where a statement is over, so the parser itself says which statement brought the key: quoted,
    dotted and inline keys need no rules here. Slow (a parse for each line), and for mistakes only.
    """
    found, depth, begins = 1, 0, 1
    lines = [f"{line}\n" for line in text.split("\n")]
    for number in range(1, len(lines) + 1):
        try:
            so_far = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        if (reached := _depth(so_far, path)) > depth:
            found, depth = begins, reached
        begins = number + 1
    return found


def _depth(value: Any, path: KeyPath) -> int:
    """How many parts of the path are there."""
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return depth
    return len(path)


def _problems(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    for detail in error.errors(include_url=False):
        # What pydantic adds behind a key of a table that it refuses.
        path = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "problems":
            for rest, sentence in detail["ctx"]["problems"]:
                yield path + rest, sentence
        else:
            yield path, _sentence(detail)


def _sentence(detail: Mapping[str, Any]) -> str:
    match detail["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a known key"
        case "model_type" | "dict_type":
            return "must be a table"
        case "string_pattern_mismatch":
            # Without what was written: it may be somebody's address, and this goes to the logs.
            return "is not written as it should be"
    text = str(detail["msg"]).removeprefix("Value error, ")
    text = re.sub(r"^(Input|String|List) should (be|have|match)", r"must \2", text)
    given = detail["input"]
    if text.endswith(".") or not isinstance(given, str | int | float):
        return text.removesuffix(".")
    return f"{text}, not {given}"
