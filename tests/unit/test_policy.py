"""What a district decides for itself, and how a broken policy is refused."""

import os
import re
import tomllib
from datetime import time, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.districts import Districts
from shared.events import Category
from shared.policy import (
    AnswerTimes,
    Coordinator,
    DistrictError,
    Messages,
    Need,
    Policy,
    line_of,
    parse_policy,
)

DISTRICTS = Path(__file__).parents[2] / "districts"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "policy.md"

PLACES = """
code = "99.01"
name = "Los Angeles"
province = "Trial"
timezone = "America/Los_Angeles"
reach_km = 50

[[subdistricts]]
code = "99.01.001"
name = "Downtown"
latitude = 34.05
longitude = -118.25
radius_km = 5
"""

POLICY = """\
[answer]
normal_minutes = 5
urgent_minutes = 2.5
[[answer.times]]
from = "21:00"
to = "05:00"
normal_minutes = 20
urgent_minutes = 7
[[answer.times]]
from = "12:00"
to = "13:30"
normal_minutes = 0.01
urgent_minutes = 0.01
[parallel]
normal = 1
urgent = 10
[search]
steps_km = [0.5, 12.5]
rounds = 2
first_roles = ["psm"]
neighbours = []
retry_after_seconds = 0.5
same_distance_km = 0.5
busy_counts_km = 2.5
recent_days = 7
[acceptance]
arrive_within_minutes = 90
report_within_minutes = 480
[escalation]
normal_minutes = 20
urgent_minutes = 7
[volunteer]
default_capacity = 1
rest_hours = 0
[needs.mental_illness]
roles = ["tksk"]
trainings = ["mental_health"]
[needs.child_neglected]
trainings = ["children"]
[[coordinators]]
name = "Ani"
phone = "0890 0000 0201"
subdistrict = "99.01.001"
[[coordinators]]
name = "Office"
email = "office@example.org"
language = "en"
"""

FILE = Path("99.01/policy.toml")


def _parse(text: str) -> Policy:
    return parse_policy(text, file=FILE, district="99.01", subdistricts=["99.01.001"])


def _refusals(text: str) -> list[str]:
    with pytest.raises(DistrictError) as caught:
        _parse(text)
    return [line.removeprefix(f"{FILE}: ") for line in str(caught.value).splitlines()]


def _changed(before: str, after: str) -> str:
    assert POLICY.count(before) == 1, before
    return POLICY.replace(before, after)


def test_a_policy_comes_with_its_units() -> None:
    minute = timedelta(minutes=1)
    assert _parse(POLICY) == Policy(
        answer_within={"normal": 5 * minute, "urgent": 2.5 * minute},
        answer_times=(
            AnswerTimes(time(21), time(5), {"normal": 20 * minute, "urgent": 7 * minute}),
            AnswerTimes(time(12), time(13, 30), {"normal": 0.01 * minute, "urgent": 0.01 * minute}),
        ),
        parallel={"normal": 1, "urgent": 10},
        steps_m=(500.0, 12_500.0),
        rounds=2,
        first_roles=("psm",),
        neighbours=(),
        retry_after=timedelta(seconds=0.5),
        same_distance_m=500.0,
        busy_counts_m=2500.0,
        recent=timedelta(days=7),
        arrive_within=timedelta(minutes=90),
        report_within=timedelta(hours=8),
        escalate_after={"normal": 20 * minute, "urgent": 7 * minute},
        default_capacity=1,
        rest=timedelta(0),
        needs={
            "mental_illness": Need(roles=("tksk",), trainings=("mental_health",)),
            "child_neglected": Need(trainings=("children",)),
        },
        coordinators=(
            Coordinator("Ani", "+6289000000201", None, subdistrict="99.01.001"),
            Coordinator("Office", None, "office@example.org", language="en"),
        ),
    )
    assert _parse(POLICY).radius_m == 12_500


MESSAGES = """\
[messages]
channels = ["sms", "email"]
sms_a_day = 500
warn_at_percent = 75
ping_every_days = 30
ping_at = "08:30"
ping_within_hours = 12
"""


def test_messages_come_with_their_units() -> None:
    assert _parse(POLICY + MESSAGES).messages == Messages(
        channels=("sms", "email"),
        sms_a_day=500,
        warn_at=0.75,
        ping_every=timedelta(days=30),
        ping_at=time(8, 30),
        ping_within=timedelta(hours=12),
    )


def test_without_messages_there_is_no_budget_and_nobody_is_pinged() -> None:
    messages = _parse(POLICY).messages
    assert messages == _parse(POLICY + "[messages]\n").messages == Messages()
    assert (messages.channels, messages.sms_a_day, messages.ping_every) == ((), None, None)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('["sms", "email"]', '["sms", "sms"]', "line 49: messages.channels[1]: sms is there twice"),
        ('["sms", "email"]', '["SMS!"]', "line 49: messages.channels[0]: is not written as it"),
        ("= 500", "= -1", "line 50: messages.sms_a_day: must be greater than or equal to 0"),
        ("= 500", "= 0.5", "line 50: messages.sms_a_day: must be a valid integer"),
        ("= 75", "= 0", "line 51: messages.warn_at_percent: must be greater than or equal to 1"),
        ("= 75", "= 101", "line 51: messages.warn_at_percent: must be less than or equal to 100"),
        ("= 30", "= 0", "line 52: messages.ping_every_days: must be greater than or equal to 1"),
        (
            '"08:30"',
            '"05:59"',
            "line 53: messages.ping_at: must be between 06:00 and 20:00: nobody is woken for a "
            "test",
        ),
        ('"08:30"', '"20:00"', "line 53: messages.ping_at: must be between 06:00 and 20:00"),
        ('"08:30"', '"9"', 'line 53: messages.ping_at: must be a time of day such as "21:00"'),
        ("= 12\n", "= 0\n", "line 54: messages.ping_within_hours: must be greater than 0"),
        ("= 12\n", "= 200\n", "line 54: messages.ping_within_hours: must be less than or equal"),
        ("ping_at", "ping_time", "line 53: messages.ping_time: is not a known key"),
    ],
)
def test_broken_messages_are_refused_with_the_line(before: str, after: str, told: str) -> None:
    assert MESSAGES.count(before) == 1
    (refusal,) = _refusals(POLICY + MESSAGES.replace(before, after))
    assert refusal.startswith(told)


def test_answer_times_and_needs_may_be_left_out() -> None:
    text = POLICY[: POLICY.index("[[answer.times]]")] + POLICY[POLICY.index("[parallel]") :]
    text = text[: text.index("[needs.")] + text[text.index("[[coordinators]]") :]
    policy = _parse(text)
    assert policy.answer_times == ()
    assert policy.needs == {}


@pytest.mark.parametrize(
    ("local", "normal", "urgent"),
    [
        (time(20, 59, 59), 5, 2.5),
        (time(21, 0), 20, 7),
        (time(23, 59, 59), 20, 7),
        (time(0, 0), 20, 7),
        (time(4, 59, 59), 20, 7),
        (time(5, 0), 5, 2.5),
        (time(12, 0), 0.01, 0.01),
        (time(13, 29, 59), 0.01, 0.01),
        (time(13, 30), 5, 2.5),
    ],
)
def test_the_time_to_answer_depends_on_the_time_of_day(
    local: time, normal: float, urgent: float
) -> None:
    policy = _parse(POLICY)
    assert policy.respond_within("normal", local) == timedelta(minutes=normal)
    assert policy.respond_within("urgent", local) == timedelta(minutes=urgent)


def test_a_window_may_end_at_midnight() -> None:
    policy = _parse(_changed('to = "05:00"', 'to = "00:00"'))
    assert policy.respond_within("normal", time(23, 59)) == timedelta(minutes=20)
    assert policy.respond_within("normal", time(0, 0)) == timedelta(minutes=5)


minutes_of_day = st.integers(0, 24 * 60 - 1)


@given(start=minutes_of_day, length=st.integers(1, 24 * 60 - 1), later=minutes_of_day)
def test_a_window_covers_its_length_from_its_start(start: int, length: int, later: int) -> None:
    def clock(minute: int) -> time:
        return time(minute // 60 % 24, minute % 60)

    window = AnswerTimes(clock(start), clock(start + length), {})
    assert window.covers(clock(start + later)) == (later < length)


def test_the_coordinators_of_a_subdistrict_come_before_those_of_the_district() -> None:
    policy = _parse(
        POLICY + '[[coordinators]]\nname = "Budi"\nphone = "0890 0000 0202"\n'
        'subdistrict = "99.01.001"\n'
    )
    assert [one.name for one in policy.coordinators_of("99.01.001")] == ["Ani", "Budi", "Office"]
    assert [one.name for one in policy.coordinators_of("99.01.002")] == ["Office"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        # gaps
        ("retry_after_seconds = 0.5\n", "", "line 17: search.retry_after_seconds: is missing"),
        ("rest_hours = 0\n", "", "line 32: volunteer.rest_hours: is missing"),
        ("[parallel]\nnormal = 1\nurgent = 10\n", "", "line 1: parallel: is missing"),
        ('from = "12:00"\n', "", "line 9: answer.times[1].from: is missing"),
        ('name = "Office"\n', "", "line 44: coordinators[1].name: is missing"),
        (
            '[[coordinators]]\nname = "Office"\nemail = "office@example.org"\nlanguage = "en"\n',
            "",
            "line 40: coordinators: needs one of the whole district, that is one without "
            "subdistrict",
        ),
        (
            'email = "office@example.org"\n',
            "",
            "line 44: coordinators[1]: needs phone or email, or nobody can be told",
        ),
        (
            '[needs.child_neglected]\ntrainings = ["children"]',
            "[needs.child_neglected]\ntrainings = []",
            "line 38: needs.child_neglected: needs roles or trainings; without both it would ask "
            "for nothing",
        ),
        # keys and types
        ("rounds = 2", "rounds = 2\nround = 2", "line 20: search.round: is not a known key"),
        ("[parallel]", "[paralel]\n[parallel]", "line 14: paralel: is not a known key"),
        ("rounds = 2", "rounds = 2.5", "line 19: search.rounds: must be a valid integer, not 2.5"),
        ("rounds = 2", "rounds = true", "line 19: search.rounds: must be a valid integer, not Tr"),
        (
            "recent_days = 7",
            'recent_days = "7"',
            "line 25: search.recent_days: must be a valid number, not 7",
        ),
        (
            "recent_days = 7",
            "recent_days = inf",
            "line 25: search.recent_days: must be a finite number, not inf",
        ),
        (
            "[parallel]\nnormal = 1\nurgent = 10\n",
            "[[parallel]]\nnormal = 1\nurgent = 10\n",
            "line 14: parallel: must be a table",
        ),
        # ranges
        (
            "normal_minutes = 5\n",
            "normal_minutes = -5\n",
            "line 2: answer.normal_minutes: must be greater than or equal to 0.01, not -5",
        ),
        (
            "urgent = 10",
            "urgent = 11",
            "line 16: parallel.urgent: must be less than or equal to 10, not 11",
        ),
        (
            "normal = 1\n",
            "normal = 0\n",
            "line 15: parallel.normal: must be greater than or equal to 1, not 0",
        ),
        ("[0.5, 12.5]", "[]", "line 18: search.steps_km: must have at least 1 item"),
        ("[0.5, 12.5]", "[0, 12.5]", "line 18: search.steps_km[0]: must be greater than or equal"),
        (
            "[0.5, 12.5]",
            "[0.5, 12.5, 3]",
            "line 18: search.steps_km: must ascend, but 3 comes after 12.5",
        ),
        (
            "[0.5, 12.5]",
            "[12.5, 12.5]",
            "line 18: search.steps_km: must ascend, but 12.5 comes after 12.5",
        ),
        # times of day
        (
            'to = "05:00"',
            'to = "25:00"',
            'line 6: answer.times[0].to: must be a time of day such as "21:00", not 25:00',
        ),
        (
            'to = "05:00"',
            'to = "5:00"',
            'line 6: answer.times[0].to: must be a time of day such as "21:00", not 5:00',
        ),
        (
            'to = "05:00"',
            "to = 5",
            'line 6: answer.times[0].to: must be a time of day such as "21:00", not 5',
        ),
        (
            'to = "05:00"',
            'to = "21:00"',
            "line 6: answer.times[0].to: must be another time than from; a whole day needs no "
            "times of its own",
        ),
        (
            'to = "05:00"',
            'to = "12:01"',
            "line 10: answer.times[1].from: overlaps answer.times[0]; only one of them can hold",
        ),
        (
            'to = "13:30"',
            'to = "21:01"',
            "line 10: answer.times[1].from: overlaps answer.times[0]; only one of them can hold",
        ),
        # contradictions
        (
            "urgent_minutes = 2.5",
            "urgent_minutes = 5.5",
            "line 3: answer.urgent_minutes: must be at most the 5 of normal_minutes, not 5.5",
        ),
        (
            "normal_minutes = 20\nurgent_minutes = 7\n[[answer.times]]",
            "normal_minutes = 6\nurgent_minutes = 7\n[[answer.times]]",
            "line 8: answer.times[0].urgent_minutes: must be at most the 6 of normal_minutes, "
            "not 7",
        ),
        (
            "[escalation]\nnormal_minutes = 20",
            "[escalation]\nnormal_minutes = 19.5",
            "line 30: escalation.normal_minutes: must be at least 20, the longest time to answer, "
            "not 19.5",
        ),
        (
            "same_distance_km = 0.5",
            "same_distance_km = 0.6",
            "line 23: search.same_distance_km: must be at most the 0.5 of the first of steps_km, "
            "not 0.6",
        ),
        (
            "neighbours = []",
            'neighbours = [\n  "99.02",\n  "99.01",\n]',
            "line 21: search.neighbours[1]: 99.01 is this district itself",
        ),
        (
            "neighbours = []",
            'neighbours = ["99.02", "99.02"]',
            "line 21: search.neighbours[1]: 99.02 is there twice",
        ),
        # words that nobody knows
        (
            '["psm"]',
            '["psm", "doctor"]',
            "line 20: search.first_roles[1]: must be 'psm', 'tksk', 'pensosmas' or 'pkh', not "
            "doctor",
        ),
        ('["psm"]', '["psm", "psm"]', "line 20: search.first_roles[1]: psm is there twice"),
        ('roles = ["tksk"]', 'roles = ["TKSK"]', "line 36: needs.mental_illness.roles[0]: must be"),
        (
            'trainings = ["children"]',
            'trainings = ["Of children"]',
            "line 39: needs.child_neglected.trainings[0]: is not written as it should be",
        ),
        ("[needs.child_neglected]", "[needs.children]", "line 38: needs.children: must be 'elder"),
        # coordinators
        (
            '"0890 0000 0201"',
            '"0890"',
            "line 42: coordinators[0].phone: This is not a telephone number. Write it as 0812 3456 "
            "7890, or with + and the country code",
        ),
        (
            '"office@example.org"',
            '"office"',
            "line 46: coordinators[1].email: is not written as it should be",
        ),
        (
            '"99.01.001"',
            '"99.01.002"',
            "line 43: coordinators[0].subdistrict: must be a subdistrict of places.toml "
            "(99.01.001), not 99.01.002",
        ),
    ],
)
def test_a_broken_policy_is_refused_with_the_line(before: str, after: str, told: str) -> None:
    (refusal,) = _refusals(_changed(before, after))
    assert refusal.startswith(told)


def test_without_coordinators_nobody_would_be_told() -> None:
    text = POLICY[: POLICY.index("[[coordinators]]")]
    assert _refusals(text) == ["line 1: coordinators: is missing"]
    assert _refusals("coordinators = []\n" + text) == [
        "line 1: coordinators: needs one of the whole district, that is one without subdistrict"
    ]


def test_all_problems_are_told_at_once() -> None:
    text = POLICY.replace("urgent_minutes = 2.5", "urgent_minutes = 6")
    text = text.replace("steps_km = [0.5, 12.5]", "steps_km = [2, 1]")
    text = text.replace("rounds = 2", "rounds = 0")
    text = text.replace("neighbours = []", 'neighbours = ["99.02", "99.01", "99.02"]')
    text = text.replace('name = "Office"', "")
    assert [line.split(": ")[:2] for line in _refusals(text)] == [
        ["line 3", "answer.urgent_minutes"],
        ["line 18", "search.steps_km"],
        ["line 19", "search.rounds"],
        ["line 21", "search.neighbours[1]"],
        ["line 21", "search.neighbours[2]"],
        ["line 44", "coordinators[1].name"],
    ]
    both = POLICY.replace("normal_minutes = 20", "normal_minutes = 21")
    both = both.replace("urgent_minutes = 7\n[vol", "urgent_minutes = 6\n[vol")
    both = both.replace("[escalation]\nnormal_minutes = 21", "[escalation]\nnormal_minutes = 20")
    assert [line.split(": ")[:2] for line in _refusals(both)] == [
        ["line 30", "escalation.normal_minutes"],
        ["line 31", "escalation.urgent_minutes"],
    ]


def test_a_slip_of_the_syntax_is_told_with_its_line() -> None:
    (refusal,) = _refusals(_changed("rounds = 2", "rounds = "))
    assert refusal == "is not valid TOML: Invalid value (at line 19, column 10)"


LINES = """\
# a comment: b.c = 1
a.b = 1
"a"."c d" = { e = 1, f = [1, 2] }
text = '''
[table]
key = 1
'''
nested = [
  [1],
  [2],
]
[table]
key = 1  # [table.other]
[[table.rows]]
[[table.rows]]
  key = 2
[table.rows.below]
key = 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("a", "b"), 2),
        (("a", "c d", "f", 1), 3),
        (("text",), 4),
        (("nested", 1, 0), 8),
        (("table",), 12),
        (("table", "key"), 13),
        (("table", "rows"), 14),
        (("table", "rows", 1), 15),
        (("table", "rows", 1, "key"), 16),
        (("table", "rows", 1, "below", "key"), 18),
        (("table", "rows", 0, "missing"), 14),
        (("table", "missing", "key"), 12),
        (("missing",), 1),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_of_a_key_is_found(path: tuple[str | int, ...], line: int, newline: str) -> None:
    assert line_of(LINES.replace("\n", newline), path) == line


def test_the_page_on_the_policy_names_every_key() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## A file that is refused")[0]
    written = tomllib.loads(POLICY + MESSAGES)
    tables = ("answer", "parallel", "search", "acceptance", "escalation", "volunteer", "messages")
    for name in tables:
        for key in written[name]:
            assert f"`{name}.{key}`" in table or f"`[[{name}.{key}]]`" in table
    rows = [*written["answer"]["times"], *written["needs"].values(), *written["coordinators"]]
    for key in {key for row in rows for key in row}:
        assert f"`{key}`" in table
    for category in get_args(Category):
        assert f"`{category}`" in table


def test_the_page_on_the_policy_shows_what_is_really_said() -> None:
    file = Path("districts/19.04/policy.toml")
    text = (DISTRICTS.parent / file).read_text(encoding="utf-8")
    for before, after in [
        ("rounds = 2", "round = 2"),
        ("urgent_minutes = 20", "urgent_minutes = 6"),
    ]:
        assert text.count(f"\n{before}\n") == 1
        text = text.replace(f"\n{before}\n", f"\n{after}\n")
    with pytest.raises(DistrictError) as caught:
        parse_policy(
            text, file=file, district="19.04", subdistricts=[f"19.04.0{n}" for n in range(1, 7)]
        )
    # Each comment that comes into the policy moves the lines.
    said = re.sub(r"line [0-9]+", "line N", str(caught.value))
    page = re.sub(r"line [0-9]+", "line N", PAGE.read_text(encoding="utf-8"))
    assert f"cannot start: {said}\n" in page
    assert f"problem={said!r}" in page


# --- districts that are read again -------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the synthetic district 99.01."""
    (tmp_path / "99.01").mkdir()
    (tmp_path / "99.01" / "places.toml").write_text(PLACES, encoding="utf-8")
    (tmp_path / "99.01" / "policy.toml").write_text(POLICY, encoding="utf-8")
    return tmp_path


def _rewrite(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    modified_ns = file.stat().st_mtime_ns
    file.write_text(text.replace(before, after), encoding="utf-8")
    # A file system's clock may be too coarse for two writes of a test.
    os.utime(file, ns=(modified_ns + 1_000_000, modified_ns + 1_000_000))


def test_districts_are_a_mapping_like_those_that_are_loaded_once(folder: Path) -> None:
    districts = Districts([folder, DISTRICTS], villages=False)
    assert dict(districts) == Districts([folder, DISTRICTS], villages=False)
    assert list(districts) == ["19.04", "99.01"]
    assert len(districts) == 2
    assert districts.problem is None


def test_a_broken_folder_is_refused_at_the_start(folder: Path) -> None:
    _rewrite(folder / "99.01" / "policy.toml", "rounds = 2", "rounds = 0")
    with pytest.raises(DistrictError, match="line 19"):
        Districts([folder])


def test_nothing_is_read_again_when_nothing_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    districts = Districts([folder])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("shared.districts._read_folders", refuse)
    assert districts.reload() == []


def test_a_changed_policy_is_taken_over_and_the_rest_stays(folder: Path) -> None:
    districts = Districts([folder, DISTRICTS])
    before, other = districts["99.01"], districts["19.04"]
    _rewrite(folder / "99.01" / "policy.toml", "rounds = 2", "rounds = 3")
    assert districts.reload() == ["99.01"]
    assert districts["99.01"].policy.rounds == 3
    assert before.policy.rounds == 2
    assert districts["19.04"] is other
    assert districts.reload() == []


def test_a_comment_changes_no_district(folder: Path) -> None:
    districts = Districts([folder])
    before = districts["99.01"]
    _rewrite(folder / "99.01" / "policy.toml", "rounds = 2", "rounds = 2  # two")
    assert districts.reload() == []
    assert districts["99.01"] is before


def test_changed_places_are_taken_over(folder: Path) -> None:
    districts = Districts([folder])
    _rewrite(folder / "99.01" / "places.toml", "reach_km = 50", "reach_km = 60")
    assert districts.reload() == ["99.01"]
    assert districts["99.01"].reach_km == 60


def test_a_broken_file_changes_nothing_until_it_is_mended(folder: Path) -> None:
    districts = Districts([folder])
    before, file = districts["99.01"], folder / "99.01" / "policy.toml"
    _rewrite(file, "rounds = 2", "rounds = 0")
    for _ in range(2):
        assert districts.reload() == []
        assert districts["99.01"] is before
        assert districts.problem is not None
        assert districts.problem.startswith(f"{file}: line 19: search.rounds: must be greater")
    _rewrite(file, "rounds = 0", "rounds = 5")
    assert districts.reload() == ["99.01"]
    assert districts.problem is None
    assert districts["99.01"].policy.rounds == 5


def test_a_file_that_is_put_back_as_it_was_ends_the_problem(folder: Path) -> None:
    districts = Districts([folder])
    file = folder / "99.01" / "policy.toml"
    aside = file.rename(folder / "policy.toml")
    assert districts.reload() == []
    assert districts.problem == f"{file}: is missing"
    aside.rename(file)
    assert districts.reload() == []
    assert districts.problem is None


def test_a_new_district_comes_while_running(folder: Path) -> None:
    districts = Districts([folder])
    (folder / "99.02").mkdir()
    (folder / "99.02" / "places.toml").write_text(PLACES.replace("99.01", "99.02"))
    (folder / "99.02" / "policy.toml").write_text(POLICY.replace("99.01", "99.02"))
    assert districts.reload() == ["99.02"]
    assert list(districts) == ["99.01", "99.02"]


def test_a_district_whose_folder_goes_is_kept(folder: Path) -> None:
    districts = Districts([folder, DISTRICTS], villages=False)
    (folder / "99.01").rename(folder.parent / f"{folder.name}-99.01")
    assert districts.reload() == []
    assert districts.problem is not None
    assert districts.problem.startswith("99.01: its folder is gone")
    assert "99.01" in districts


def test_villages_stay_without_reading_the_country_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder / "19.04"
    real.mkdir()
    for name in ("places.toml", "policy.toml"):
        (real / name).write_text((DISTRICTS / "19.04" / name).read_text(encoding="utf-8"))
    districts = Districts([folder])

    def refuse(*_: object) -> None:
        raise AssertionError("the whole country is read again")

    with monkeypatch.context() as patch:
        patch.setattr("shared.districts._with_villages", refuse)
        _rewrite(real / "policy.toml", "default_capacity = 2", "default_capacity = 1")
        assert districts.reload() == ["19.04"]
    assert len(districts["19.04"].villages) == 63

    places = (real / "places.toml").read_text(encoding="utf-8")
    (real / "places.toml").write_text(places[: places.rindex("[[subdistricts]]")])
    policy = (real / "policy.toml").read_text(encoding="utf-8")
    (real / "policy.toml").write_text(policy[: policy.rindex("[[coordinators]]")])
    assert districts.reload() == ["19.04"]
    assert len(districts["19.04"].subdistricts) == 5
    assert len(districts["19.04"].villages) == 54
