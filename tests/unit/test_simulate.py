"""The simulator: the same luck for all, honest counting, and the rules as they are."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from ops import cli_simulate, simulate
from ops.cli_simulate import PolicyFile, Scenario, compare, invent_scenario, read_policies
from ops.simulate import (
    Measures,
    Outcome,
    People,
    Report,
    Run,
    Tally,
    carried_by,
    gini,
    measure,
    percentile,
)
from ops.simulate_view import LANGUAGES, Comparison, page
from ops.synthetic import generate_reports
from shared.districts import District, DistrictError
from shared.places import resolve_place
from shared.policy import Policy
from tests.factories import KOBA

PROJECT = Path(__file__).parents[2]
OWN = PROJECT / "districts" / "19.04" / "policy.toml"
MORNING = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)  # 10.00 in Bangka Tengah
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """A hundred invented reports for each seed."""
    return invent_scenario(100, district="19.04", volunteers=None, seeds=SEEDS)


def of(scenario: Scenario, name: str = "own", **changed: Any) -> PolicyFile:
    """The district's policy with some figures changed."""
    return PolicyFile(name, replace(scenario.district.policy, **changed), {})


def played(scenario: Scenario, *files: PolicyFile, answer_rate: float = 0.3) -> list[Measures]:
    """What came of each policy, with no time in it."""
    found = asyncio.run(compare(scenario, files, answer_rate=answer_rate))
    return [replace(measures, seconds=0.0) for measures in found.values()]


# --- luck -----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_figures(scenario: Scenario) -> None:
    assert played(scenario, of(scenario)) == played(scenario, of(scenario))


def test_another_seed_gives_others(scenario: Scenario) -> None:
    other = replace(scenario, reports={4: scenario.reports[1]})
    first = replace(scenario, reports={1: scenario.reports[1]})
    assert played(first, of(first)) != played(other, of(other))


def test_a_volunteer_does_the_same_about_a_case_whatever_the_policy(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies ask others, earlier or later; but whom both ask, does the same."""
    luck, seen = People.luck, [dict[tuple[int, UUID], Any](), dict[tuple[int, UUID], Any]()]
    one = replace(scenario, reports={1: scenario.reports[1]})
    for number, file in enumerate((of(one), of(one, parallel={"normal": 4, "urgent": 4}))):

        def noted(people: People, case: int, volunteer: UUID, number: int = number) -> Any:
            return seen[number].setdefault((case, volunteer), luck(people, case, volunteer))

        monkeypatch.setattr(People, "luck", noted)
        played(one, file)
    both = seen[0].keys() & seen[1].keys()
    assert len(both) > 300
    assert seen[0].keys() != seen[1].keys()
    assert all(seen[0][pair] == seen[1][pair] for pair in both)


def test_whoever_answers_at_a_low_rate_answers_alike_at_a_high_one() -> None:
    for volunteer in map(UUID, map("{:032x}".format, range(1, 400))):
        low, high = (People(rate, seed=1).luck(7, volunteer) for rate in (0.17, 0.47))
        assert low.answer is None or low == high


def test_the_luck_is_what_it_is_said_to_be() -> None:
    volunteers = [UUID(int=number) for number in range(1, 5001)]
    all_luck = [People(0.3, seed=1).luck(1, volunteer) for volunteer in volunteers]
    answered = [luck for luck in all_luck if luck.answer]
    assert len(answered) / 5000 == pytest.approx(0.3, abs=0.02)
    yes = sum(luck.answer == "accept" for luck in answered)
    assert yes / len(answered) == pytest.approx(0.7, abs=0.03)
    median = percentile([luck.after / timedelta(minutes=1) for luck in answered], 0.5)
    assert median == pytest.approx(3, abs=0.2)
    visits = [luck.visit / timedelta(minutes=1) for luck in answered]
    assert sum(visits) / len(visits) == pytest.approx(45, abs=3)
    assert sum(luck.trouble is not None for luck in answered) == pytest.approx(90, abs=25)


# --- what policies do -----------------------------------------------------------------------------


def test_asking_three_at_once_is_not_slower_than_asking_one(scenario: Scenario) -> None:
    one, three = played(
        scenario,
        of(scenario, "one", parallel={"normal": 1, "urgent": 1}),
        of(scenario, "three", parallel={"normal": 3, "urgent": 3}),
    )
    assert one.minutes_p50 is not None
    assert three.minutes_p50 is not None
    assert three.minutes_p50 <= one.minutes_p50
    assert three.sms_per_case > one.sms_per_case


def test_where_nobody_answers_every_case_ends_with_the_coordinator(scenario: Scenario) -> None:
    (silent,) = played(scenario, of(scenario), answer_rate=0.0)
    assert silent.accepted == 0
    assert silent.minutes_p50 is silent.minutes_p90 is silent.distance_mean_km is None
    assert silent.escalated == 1
    assert silent.offers_per_case > 5
    assert silent.gini == silent.busiest_tenth == 0


def test_at_the_end_every_place_is_free_again(scenario: Scenario) -> None:
    run = a_run(scenario)
    asyncio.run(run.play())
    assert not run.volunteers.open_cases.any()


def test_the_timer_behind_the_openings_finds_nobody(scenario: Scenario) -> None:
    """It is left out because it is slow: with it the same happens."""
    few = [row for row in scenario.volunteers if row["role"] == "tksk"] + scenario.volunteers[:6]
    scarce = replace(scenario, volunteers=list({row["id"]: row for row in few}.values()))
    without, with_timer = (
        asyncio.run(a_run(scarce, retries=retries).play()) for retries in (False, True)
    )
    assert without.tallies == with_timer.tallies
    assert without.accepted == with_timer.accepted
    assert any(not tally.accepted_after for tally in without.tallies)


def a_run(scenario: Scenario, *, retries: bool = False) -> Run:
    default = scenario.district.policy.default_capacity
    rows = [{**row, "capacity": row["capacity"] or default} for row in scenario.volunteers]
    return Run(
        scenario.reports[1],
        rows,
        districts=scenario.districts,
        people=People(0.3, seed=1),
        retries=retries,
    )


# --- one case -------------------------------------------------------------------------------------


@pytest.fixture
def willing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody answers after three minutes, says yes and meets no trouble."""
    for name, value in {"YES": 1.0, "ANSWER_SIGMA": 0.0, "OBSTACLE": 0.0, "HAND_BACK": 0.0}.items():
        monkeypatch.setattr(simulate, name, value)


def somebody(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": UUID(int=number), "district": "19.04", "name": f"Relawan {number}", "role": "psm",
        "latitude": KOBA[0] + 0.01 * number, "longitude": KOBA[1], "categories": [], "capacity": 1,
        **values,
    }  # fmt: skip


def a_report(districts: Mapping[str, District], at: datetime = MORNING, **values: Any) -> Report:
    place = resolve_place(districts, latitude=KOBA[0], longitude=KOBA[1])
    return Report(at, place, values.pop("category", "homeless"), values.pop("urgency", "normal"))


def plain(districts: Mapping[str, District], **figures: Any) -> dict[str, District]:
    """The district with a policy of one at a time."""
    own = districts["19.04"]
    policy: Policy = replace(
        own.policy, **{"parallel": {"normal": 1, "urgent": 1}, "answer_times": (), **figures}
    )
    return {"19.04": replace(own, policy=policy)}


def play(
    districts: Mapping[str, District], reports: Sequence[Report], rows: Sequence[dict[str, Any]]
) -> Outcome:
    run = Run(reports, rows, districts=districts, people=People(1.0, seed=1))
    return asyncio.run(run.play())


@pytest.mark.usefixtures("willing")
def test_a_case_that_goes_well_costs_an_offer_and_three_sentences_back(
    districts: dict[str, District],
) -> None:
    known = plain(districts)
    outcome = play(known, [a_report(known)], [somebody(1)])
    (tally,) = outcome.tallies
    assert tally.accepted_after == timedelta(minutes=3)
    assert tally.distance_m == pytest.approx(1113, abs=1)
    assert (tally.offers, tally.sms, tally.escalations) == (1, 4, [])
    assert outcome.accepted == [1]


@pytest.mark.usefixtures("willing")
def test_whoever_was_asked_beside_is_told_not_to_come(districts: dict[str, District]) -> None:
    known = plain(districts, parallel={"normal": 2, "urgent": 2})
    outcome = play(known, [a_report(known)], [somebody(1), somebody(2)])
    (tally,) = outcome.tallies
    assert (tally.offers, tally.sms) == (2, 6)


@pytest.mark.usefixtures("willing")
def test_nobody_is_asked_while_off_duty(districts: dict[str, District]) -> None:
    known = plain(districts)
    days = [{"days": list(range(7)), "from": "15:00", "to": "16:00"}]
    outcome = play(known, [a_report(known)], [somebody(1, duty=days)])
    (tally,) = outcome.tallies
    assert tally.accepted_after == timedelta(hours=5, minutes=3)


@pytest.mark.usefixtures("willing")
def test_after_a_case_a_volunteer_rests(districts: dict[str, District]) -> None:
    known = plain(districts, rest=timedelta(hours=8))
    reports = [a_report(known), a_report(known, MORNING + timedelta(hours=9))]
    (_, second) = play(known, reports, [somebody(1)]).tallies
    awake = play(plain(districts, rest=timedelta(0)), reports, [somebody(1)]).tallies[1]
    assert awake.accepted_after == timedelta(minutes=3)
    assert second.accepted_after is None or second.accepted_after > timedelta(minutes=3)


@pytest.mark.usefixtures("willing")
def test_every_coordinator_of_an_escalation_gets_an_sms(districts: dict[str, District]) -> None:
    known = plain(districts)
    (tally,) = play(known, [a_report(known)], [somebody(1, latitude=-5.0)]).tallies
    assert tally.escalations == ["nobody_left_to_ask"]
    assert tally.sms == len(known["19.04"].policy.coordinators_of("19.04.01")) == 2


# --- measures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 1, 1, 1], 0.0), ([0, 0, 0, 1], 0.75), ([1, 3], 0.25), ([0, 0], 0.0)],
)
def test_the_gini_coefficient(values: list[float], expected: float) -> None:
    assert gini(values) == pytest.approx(expected)


def test_what_the_busiest_carry() -> None:
    assert carried_by([1] * 9 + [11], 0.1) == pytest.approx(0.55)
    assert carried_by([1, 1, 1, 1, 6], 0.1) == pytest.approx(0.3)  # half of one volunteer
    assert carried_by([2, 1], 1.0) == 1
    assert carried_by([0, 0], 0.1) == 0


def test_a_case_that_nobody_accepted_counts_as_never_not_as_nothing() -> None:
    quick = [Tally(accepted_after=timedelta(minutes=m), distance_m=1000) for m in range(1, 9)]
    found = measure([Outcome([*quick, Tally(), Tally()], [8, 0], seconds=0.0)])
    assert found.accepted == 0.8
    assert found.minutes_p50 == 5
    assert found.minutes_p90 is None
    assert dict(found.curve)[4] == 0.4


def test_urgent_cases_are_also_measured_by_themselves() -> None:
    slow, quick = (Tally(accepted_after=timedelta(minutes=m)) for m in (30, 5))
    quick.urgent = True
    found = measure([Outcome([slow, slow, quick], [1], seconds=0.0)])
    assert (found.minutes_p90, found.urgent_p90) == (30, 5)
    assert measure([Outcome([slow], [1], seconds=0.0)]).urgent_p90 is None


def test_invented_reports_follow_their_seed_and_the_hours_of_a_day() -> None:
    spots = [{"village": "19.04.01.2004", "latitude": KOBA[0], "longitude": KOBA[1]}]
    reports = generate_reports(spots, count=2000, seed=5)
    assert reports == generate_reports(spots, count=2000, seed=5)
    assert reports != generate_reports(spots, count=2000, seed=6)
    hours = [report.at.hour for report in reports]
    assert sum(8 <= hour < 10 for hour in hours) > 5 * sum(2 <= hour < 4 for hour in hours)
    assert (reports[-1].at - reports[0].at).days in (58, 59)


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(cli_simulate.simulate)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def variant(tmp_path: Path) -> Iterator[Path]:
    """The district's policy under another name."""
    file = tmp_path / "variant.toml"
    file.write_text(OWN.read_text(encoding="utf-8"), encoding="utf-8")
    yield file


def test_a_broken_policy_is_refused_with_its_line(scenario: Scenario, variant: Path) -> None:
    text = variant.read_text(encoding="utf-8")
    variant.write_text(re.sub(r"(?m)^rounds = .*", "rounds = 0", text), encoding="utf-8")
    line = text.split("\nrounds")[0].count("\n") + 2
    with pytest.raises(DistrictError, match=rf"variant\.toml: line {line}: search\.rounds: "):
        read_policies([OWN, variant], scenario)
    refused = command("--generate", "5", "--policy", str(variant))
    assert refused.exit_code == 1
    assert f"line {line}: search.rounds" in refused.output


def test_a_neighbour_without_a_folder_is_refused(scenario: Scenario, variant: Path) -> None:
    text = variant.read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^neighbours = .*", 'neighbours = ["19.71"]', text)
    variant.write_text(changed, encoding="utf-8")
    with pytest.raises(DistrictError, match=r"line \d+: search\.neighbours\[0\]: 19\.71 has no"):
        read_policies([variant], scenario)


def test_the_command_compares_policies_as_json_and_as_a_page(variant: Path, tmp_path: Path) -> None:
    text = variant.read_text(encoding="utf-8")
    variant.write_text(re.sub(r"(?m)^rounds = .*", "rounds = 7", text), encoding="utf-8")
    file = tmp_path / "page.html"
    done = command(
        "--generate", "40", "--policy", str(OWN), "--policy", str(variant), "--seed", "3",
        "--json", "--html", str(file),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert list(found["policies"]) == ["19.04", "variant"]
    assert found["cases"] == 40
    assert found["differences"]["search.rounds"][1] == "7"
    assert "variant" in file.read_text(encoding="utf-8")


def test_reports_from_elsewhere_get_a_district_made_around_them(tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    lines = [f"2018-04-01T1{n}:00:00,34.0{n},-118.25,Homeless,Downtown" for n in range(5)]
    file.write_text("reported_at,latitude,longitude,type,area\n" + "\n".join(lines), "utf-8")
    done = command("--reports", str(file), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["district"].startswith("99.01")
    assert found["volunteers"] == 10


def test_neither_reports_nor_a_number_is_refused() -> None:
    refused = command()
    assert refused.exit_code == 2
    assert "--reports FILE or --generate N" in refused.output


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_loads_nothing_and_escapes_names(scenario: Scenario, language: str) -> None:
    (found,) = played(scenario, of(scenario))
    nobody = replace(found, minutes_p90=None, p90_of_runs=(None, None), distance_mean_km=None)
    comparison = Comparison(
        district="19.04 Bangka Tengah", answer_rate=0.3, seeds=[1], volunteers=115,
        refused=["report 3: nowhere"], measures={"<b>a</b>": found, "b": nobody},
        settings={"<b>a</b>": {"x": "1"}, "b": {"x": "2"}}, command="jangkau simulate",
    )  # fmt: skip
    html = page(comparison, language=language)
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "<b>a" not in html
    assert not re.search(r"<script|<link|<img|https?:|@import|url\(", html)
    assert asdict(found)["cases"] == 300
