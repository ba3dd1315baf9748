"""`jangkau simulate`: what other settings would have done with past reports."""

import json
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import typer

from ops.known_districts import known_districts
from ops.terminal import err, fail, out, run

if TYPE_CHECKING:
    from ops.simulate import Measures, Report
    from ops.simulate_view import Comparison
    from ops.synthetic import PlannedReport
    from shared.districts import District
    from shared.policy import Policy

# Heavy modules are imported where they are needed, so that every command answers at once.

Rows = list[dict[str, Any]]
# Called with the policy's name and how many of its cases have ended.
Watch = Callable[[str, int], None]


@dataclass(frozen=True)
class PolicyFile:
    """A policy to compare: its name in the tables, and its settings as they are written."""

    name: str
    policy: "Policy"
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Scenario:
    """What is played: the reports of each seed, and the volunteers of the district.

    ``refused`` are the reports that intake would refuse, each with the reason; ``policy_file`` is
    the district's own.
    """

    district: "District"
    districts: Mapping[str, "District"]
    reports: Mapping[int, Sequence["Report"]]
    volunteers: Rows
    policy_file: Path
    refused: Sequence[str] = ()


def simulate(
    reports: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="CSV of past reports, as for jangkau demo"),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="invent so many reports of 60 days instead"),
    ] = None,
    district: Annotated[str, typer.Option(help="whose reports --generate invents")] = "19.04",
    volunteers: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV of the people; default: the district's own"
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="policy.toml to compare, several times; default: own"
        ),
    ] = None,
    answer_rate: Annotated[
        float, typer.Option(min=0, max=1, help="share of offers that are answered at all")
    ] = 0.3,
    seed: Annotated[
        list[int] | None, typer.Option(help="of the luck, several times for several runs [1]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="write a page with charts to this file")
    ] = None,
    lang: Annotated[str, typer.Option(help="of the page: id or en")] = "id",
) -> None:
    """Play past reports under other policies, with the real rules, in seconds.

    Each policy meets the same people with the same luck, so that only the settings differ. Without
    --policy it is the district's own. Reports from outside every known district get a district and
    volunteers made around them.

    Example: [bold]jangkau simulate --generate 600 --policy a.toml --policy b.toml --html a.html[/]
    """
    from ops import simulate_view

    if (reports is None) == (generate is None):
        raise fail("Give either --reports FILE or --generate N.", code=2)
    if lang not in simulate_view.LANGUAGES:
        raise fail(f"The page can be in {' or '.join(simulate_view.LANGUAGES)}.", code=2)
    seeds = list(dict.fromkeys(seed or [1]))

    async def work() -> "Comparison":
        with tempfile.TemporaryDirectory(prefix="jangkau-simulate-") as scratch:
            if reports is not None:
                scenario = read_scenario(
                    reports, volunteers=volunteers, seeds=seeds, scratch=Path(scratch)
                )
            else:
                scenario = invent_scenario(
                    generate or 0, district=district, volunteers=volunteers, seeds=seeds
                )
            files = read_policies(policy or [scenario.policy_file], scenario)
        with _bars(scenario, files) as watch:
            found = await compare(scenario, files, answer_rate=answer_rate, watch=watch)
        return simulate_view.Comparison(
            district=f"{scenario.district.code} {scenario.district.name}",
            answer_rate=answer_rate,
            seeds=seeds,
            volunteers=len(scenario.volunteers),
            refused=list(scenario.refused),
            measures=found,
            settings={file.name: file.settings for file in files},
            command=shlex.join(["jangkau", "simulate", *sys.argv[_first_argument() :]]),
        )

    comparison = run(work())
    if html is not None:
        html.write_text(simulate_view.page(comparison, language=lang), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(comparison.as_dict()))
    else:
        simulate_view.show(comparison, out)
        if html is not None:
            out.print(f"Charts: {html}", highlight=False)


def _first_argument() -> int:
    """Where this command's own arguments begin."""
    return 2 if sys.argv[1:2] == ["simulate"] else 1


@contextmanager
def _bars(scenario: Scenario, files: Sequence[PolicyFile]) -> Iterator[Watch]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    cases = sum(map(len, scenario.reports.values()))
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {file.name: bars.add_task(file.name, total=cases, start=False) for file in files}

        def watch(name: str, ended: int) -> None:
            bars.start_task(tasks[name])
            bars.update(tasks[name], completed=ended)

        yield watch


async def compare(
    scenario: Scenario,
    files: Sequence[PolicyFile],
    *,
    answer_rate: float,
    watch: Watch = lambda name, ended: None,
) -> dict[str, "Measures"]:
    """Play every policy over every seed's reports; the measures by the policies' names."""
    from ops.simulate import Outcome, People, Run, measure

    code = scenario.district.code
    found = {}
    for file in files:
        own = replace(scenario.district, policy=file.policy)
        outcomes: list[Outcome] = []
        for seed, reports in scenario.reports.items():
            played = Run(
                reports,
                [
                    {**row, "capacity": row["capacity"] or file.policy.default_capacity}
                    for row in scenario.volunteers
                ],
                districts={**scenario.districts, code: own},
                people=People(answer_rate, seed),
            )
            before = sum(len(outcome.tallies) for outcome in outcomes)
            outcomes.append(await played.play(partial(_watch_after, watch, file.name, before)))
        found[file.name] = measure(outcomes)
    return found


def _watch_after(watch: Watch, name: str, before: int, ended: int) -> None:
    watch(name, before + ended)


# --- what is played -------------------------------------------------------------------------------


def read_scenario(
    file: Path, *, volunteers: Path | None, seeds: Sequence[int], scratch: Path
) -> Scenario:
    """The scenario of a reports file; a district is made in ``scratch`` if none holds them.

    Raises:
        BrokenReports, BrokenFile, DistrictError: a file that cannot be used, with the line.
    """
    from ops.synthetic import BrokenReports, make_district, read_reports

    planned = read_reports(file)
    folders = _folders()
    districts = known_districts(folders)
    found, refused = locate(planned, districts)
    if not found:
        if not any("latitude" in report.body["place"] for report in planned):
            raise BrokenReports(f"{file.name}: {refused[0]}")
        volunteers = volunteers or make_district(planned, scratch)
        folders, districts = [scratch], known_districts([scratch])
        found, refused = locate(planned, districts)
    codes = sorted({report.place.district for report in found})
    if len(codes) > 1:
        raise BrokenReports(
            f"{file.name}: the reports lie in {', '.join(codes)}; a policy is for one district."
        )
    return _scenario(
        codes[0], districts, folders, volunteers, dict.fromkeys(seeds, found), refused=refused
    )


def invent_scenario(
    count: int, *, district: str, volunteers: Path | None, seeds: Sequence[int]
) -> Scenario:
    """A scenario of invented reports around the volunteers' villages, other ones for each seed.

    Raises:
        BrokenFile, DistrictError: the volunteers or the district cannot be used.
    """
    from ops.synthetic import generate_reports

    folders = _folders()
    districts = known_districts(folders)
    districts.of(district)
    scenario = _scenario(district, districts, folders, volunteers, {})
    spots = {
        row["village"] or row["id"]: row
        for row in scenario.volunteers
        if row["district"] == district
    }
    reports = {
        seed: locate(
            generate_reports(
                list(spots.values()),
                count=count,
                seed=seed,
                timezone=districts[district].timezone,
            ),
            {district: districts[district]},
        )[0]
        for seed in seeds
    }
    return replace(scenario, reports=reports)


def _folders() -> list[Path]:
    from shared.settings import Settings

    return Settings().district_folders


def _scenario(
    code: str,
    districts: Mapping[str, "District"],
    folders: Sequence[Path],
    volunteers: Path | None,
    reports: Mapping[int, Sequence["Report"]],
    *,
    refused: Sequence[str] = (),
) -> Scenario:
    homes = {
        path.name: path
        # Of two folders of one district the first counts.
        for folder in reversed(folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir()
    }
    people = read_volunteers(volunteers or homes[code] / "volunteers.csv", code, districts)
    for neighbour in sorted(set(districts) - {code}):
        # Those whom a policy may ask at last; without a file there is nobody.
        file = homes[neighbour] / "volunteers.csv"
        if file.exists():
            people += read_volunteers(file, neighbour, districts, of_its_own=True)
    numbered = [{**row, "id": UUID(int=number)} for number, row in enumerate(people, start=1)]
    policy_file = homes[code] / "policy.toml"
    return Scenario(districts[code], districts, reports, numbered, policy_file, refused)


def locate(
    planned: Sequence["PlannedReport"], districts: Mapping[str, "District"]
) -> tuple[list["Report"], list[str]]:
    """The reports with their places, and why the others would be refused."""
    from ops.simulate import Report
    from shared.places import PlaceError, resolve_place

    found, refused = [], []
    for number, report in enumerate(planned, start=1):
        try:
            place = resolve_place(districts, **report.body["place"])
        except PlaceError as error:
            refused.append(f"report {number}: {error.message}")
            continue
        moment = _moment(report.at, districts[place.district].timezone)
        body = report.body
        found.append(Report(moment, place, body["category"], body.get("urgency", "normal")))
    return found, refused


def _moment(at: datetime, timezone: str) -> datetime:
    """A time without a zone is the district's."""
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))


def read_volunteers(
    file: Path, code: str, districts: Mapping[str, "District"], *, of_its_own: bool = False
) -> Rows:
    """The people of a volunteers file; capacity 0 stands for the policy's default, which differs.

    ``of_its_own``: their capacity follows their own district's policy instead.

    Raises:
        BrokenFile: with every broken line.
    """
    from services.assignment.volunteer_files import read_file
    from services.assignment.volunteers import BrokenFile

    district = districts[code]
    default = district.policy.default_capacity if of_its_own else 0
    open_capacity = replace(district, policy=replace(district.policy, default_capacity=default))
    try:
        content = file.read_bytes()
        return read_file(content, district=open_capacity, districts=districts).values()
    except BrokenFile as error:
        raise BrokenFile([f"{file}: {problem}" for problem in error.problems]) from None


# --- the policies ---------------------------------------------------------------------------------


def read_policies(files: Sequence[Path], scenario: Scenario) -> list[PolicyFile]:
    """Read policies by the checks of a district's own; places are those of the reports' district.

    Raises:
        DistrictError: with every problem of the first file that has one, each with its line.
    """
    from shared.districts import DistrictError, refusal
    from shared.policy import parse_policy, problem

    names = _names(files)
    read = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DistrictError(f"{file}: is not UTF-8 text") from None
        policy = parse_policy(
            text,
            file=file,
            district=scenario.district.code,
            subdistricts=set(scenario.district.subdistrict_by_code),
        )
        for number, code in enumerate(policy.neighbours):
            # One that is refused has its people when it is mended.
            if code not in scenario.districts and not refusal(scenario.districts, code):
                sentence = f"{code} has no folder here, so nobody of it could be asked"
                raise DistrictError(
                    problem(text, ("search", "neighbours", number), sentence, file=file)
                )
        read.append(PolicyFile(names[file], policy, _settings(tomllib.loads(text))))
    return read


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """A short name for each: the file's, or the folder's of a plain policy.toml."""
    short = {file: file.resolve().parent.name if file.stem == "policy" else file.stem
             for file in files}  # fmt: skip
    names = list(short.values())
    return {file: name if names.count(name) == 1 else str(file) for file, name in short.items()}


def _settings(table: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Every setting as it is written, by its dotted key."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= _settings(value, f"{before}{key}.")
        else:
            found[before + key] = _written(value)
    return found


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_written, value)) if value else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_written(part)}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(simulate)
