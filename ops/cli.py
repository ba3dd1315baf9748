"""`jangkau`: everything that operators, districts and developers type."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops import cli_cases, cli_demo, cli_messages, cli_set_aside, cli_simulate, cli_volunteers
from ops.terminal import STOPPED, fail, out, run, told
from shared.settings import SERVICES

if TYPE_CHECKING:
    from ops.embedded import Stack
    from shared.dead_letters import DeadLetter

# Heavy modules are imported where they are needed, so that every command answers at once.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
    help="Jangkau gets a volunteer to a person in need.\n\nExample: [bold]jangkau demo[/]",
)
letters_app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be handled.\n\nExample: jangkau dead-letters list",
)
app.add_typer(cli_volunteers.app, name="volunteers")
app.add_typer(cli_messages.app, name="message")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(cli_set_aside.app, name="set-aside")
app.command()(cli_demo.demo)
app.command()(cli_simulate.simulate)
app.command()(cli_cases.case)
app.command()(cli_cases.cases)

COLOURS = {"intake": "cyan", "assignment": "magenta", "notification": "green", "stack": "yellow"}


def main() -> None:
    """Run a command; what a person can mend is one sentence, not a traceback."""
    from pydantic import ValidationError

    from shared.settings import CannotStart

    try:
        app()
    except (ValidationError, CannotStart) as error:
        raise SystemExit(fail(told(error), code=2).exit_code) from None


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="intake, assignment or notification")],
) -> None:
    """Run one service until it is told to stop; settings come from JANGKAU_* variables.

    Example: [bold]JANGKAU_PORT=8001 jangkau serve intake[/]
    """
    import importlib

    from pydantic import ValidationError
    from rich.markup import escape

    from shared.districts import DistrictError
    from shared.service import serve as serve_service
    from shared.settings import CannotStart

    _known(service)
    try:
        composed = importlib.import_module(f"services.{service}.app").compose()
    except (ValidationError, DistrictError, CannotStart) as error:
        raise fail(escape(f"{service} cannot start: {told(error)}"), code=2) from None
    raise typer.Exit(serve_service(composed))


def _known(service: str) -> None:
    if service not in SERVICES:
        raise fail(f"There is no service {service!r}; known are {', '.join(SERVICES)}.", code=2)


@app.command()
def migrate(
    services: Annotated[list[str] | None, typer.Argument(help="default: all three")] = None,
) -> None:
    """Create the databases if they are missing and bring their tables to the newest version.

    With JANGKAU_INTAKE_DATABASE_PASSWORD and its like, each belongs to a role of its own.

    Example: [bold]jangkau migrate[/]
    """
    from ops import roles
    from shared import migrations

    settings = roles.RoleSettings()

    async def work() -> None:
        for name in services or SERVICES:
            _known(name)
            url = settings.database_url_of(name)
            created = await migrations.create_database(url)
            password = settings.password_of(name)
            if password is not None:
                await roles.give(name, url, password=password)
                url = url.set(username=roles.role_of(url), password=password)
            await migrations.migrate(name, url)
            out.print(f"{name}: {'created and ' if created else ''}up to date", highlight=False)

    run(work())


@app.command()
def topics() -> None:
    """Create the declared topics that Kafka does not have yet.

    Example: [bold]jangkau topics[/]
    """
    from shared import topics as declared
    from shared.kafka import create_topics
    from shared.settings import Settings

    created = run(create_topics(Settings()))
    for topic in declared.ALL:
        mark = "created" if any(name.endswith(topic.name) for name in created) else "there"
        out.print(f"{topic.name}: {mark}", highlight=False)


@app.command()
def republish(
    service: Annotated[str, typer.Argument(help="intake, assignment or notification")],
) -> None:
    """Publish a service's journal again, in order, for a Kafka that has lost its records.

    Readers drop what they have handled. Stop them first if the topics were made anew.

    Example: [bold]jangkau republish assignment[/]
    """
    from shared import outbox
    from shared.database import Database
    from shared.settings import Settings

    _known(service)

    async def work() -> int:
        database = Database(Settings().database_url_of(service), pool_size=1)
        try:
            async with database.transaction() as session:
                return await outbox.republish_journal(session)
        finally:
            await database.close()

    out.print(f"{run(work()):,} events of {service} are on their way again.", highlight=False)


@app.command()
def up(
    data: Annotated[Path | None, typer.Option(help="where everything is kept")] = None,
    empty: Annotated[bool, typer.Option("--empty", help="import no sample volunteers")] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C, without Docker.

    A second start goes on where the first stopped.

    Example: [bold]jangkau up[/]
    """
    from ops import demo, embedded
    from ops.embedded_postgres import default_data_dir

    folder = data or default_data_dir(embedded.PROJECT)

    async def work() -> None:
        async with embedded.running(folder, output=_print_line, fixed_ports=True) as stack:
            _remember(stack)
            (known,) = await stack.rows("assignment", "SELECT count(*) AS n FROM volunteers")
            if not empty and known.n == 0:
                file = demo.SAMPLE.parent / "volunteers.csv"
                count = await demo.import_volunteers(stack, file, demo.SAMPLE_DISTRICT)
                _print_line("stack", f"{count} sample volunteers of {demo.SAMPLE_DISTRICT}")
            _print_addresses(stack)
            await asyncio.Event().wait()

    try:
        run(work())
    except typer.Exit as ended:
        # Ctrl-C is how one stops it.
        raise typer.Exit(0 if ended.exit_code == STOPPED else ended.exit_code) from None


def _remember(stack: "Stack") -> None:
    """Leave the addresses for `jangkau status` and the like in another terminal."""
    from ops.embedded import PROJECT

    file = PROJECT / ".jangkau" / "environment.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    # Links for volunteers lead to assignment.
    remembered = {"JANGKAU_PUBLIC_URL": stack.url("assignment"), **stack.environment}
    file.write_text(json.dumps(remembered), encoding="utf-8")


@app.callback()
def use_running_stack() -> None:
    """Talk to the stack of `jangkau up`, unless the environment names other servers."""
    file = Path(__file__).parents[1] / ".jangkau" / "environment.json"
    named = (
        "DATABASE_URL",
        "JANGKAU_DATABASE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "JANGKAU_KAFKA_BOOTSTRAP_SERVERS",
    )
    commands = (
        "status", "case", "cases", "volunteers", "dead-letters", "set-aside",
        "migrate", "topics", "republish",
    )  # fmt: skip
    if any(name in commands for name in sys.argv[1:2]) and not any(n in os.environ for n in named):
        try:
            os.environ.update(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return


def _print_line(source: str, line: str) -> None:
    from rich.text import Text

    out.print(
        Text.assemble((f"{source:>12} ", COLOURS.get(source, "white")), ("│ ", "dim"), line),
        soft_wrap=True,
    )


def _print_addresses(stack: "Stack") -> None:
    from rich.panel import Panel

    intake, assignment = stack.url("intake"), stack.url("assignment")
    example = (
        f"curl {intake}/v1/reports -H 'content-type: application/json' "
        """-d '{"category": "elderly_abandoned", "place": {"subdistrict": "Koba"}}'"""
    )
    lines = [
        f"Reports in         {intake}/v1/reports",
        f"Volunteers         {assignment}/v1/volunteers",
        f"Coordinators       {assignment}/v1/cases",
        f"Phones, answers    {stack.url('notification')}/sandbox",
        f"Public feed        {stack.environment['JANGKAU_KAFKA_BOOTSTRAP_SERVERS']}, public.cases",
        f"API documents      {intake}/openapi.json",
        f"Metrics            {', '.join(map(stack.metrics_url, SERVICES))}",
        "Where all stands   .venv/bin/jangkau status",
        "Story of a case    .venv/bin/jangkau case CODE",
        f"Kept in            {stack.data_dir}",
    ]
    out.print(Panel("\n".join(lines), title="Jangkau is up", title_align="left", expand=False))
    out.print("Try it:", style="bold")
    out.print(example, soft_wrap=True, highlight=False)
    out.print("Ctrl-C stops everything; the next start goes on from here.", style="dim")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show services, queues, outboxes, dead letters and waiting cases.

    Ends with 1 if something needs a person.

    Example: [bold]jangkau status --json[/]
    """
    from ops import status as asked
    from ops.status_view import show
    from shared.settings import Settings

    found = run(asked.status(Settings()))
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        show(found, out)
    raise typer.Exit(0 if found.ok else 1)


def _letter_settings(service: str) -> Any:
    from shared.settings import Settings

    _known(service)
    return Settings().database_url_of(service)


async def _with_letter(service: str, number: int, act: "Any") -> "DeadLetter":
    from shared import dead_letters
    from shared.database import Database

    database = Database(_letter_settings(service), pool_size=1)
    try:
        async with database.transaction() as session:
            letter = await dead_letters.get(session, number)
            await act(session, letter)
            return letter
    except (dead_letters.UnknownLetter, dead_letters.NotReplayable) as error:
        raise fail(str(error)) from None
    finally:
        await database.close()


ServiceArgument = Annotated[str, typer.Argument(help="whose: intake, assignment, notification")]
NumberArgument = Annotated[int, typer.Argument(help="number of the letter")]


@letters_app.command("list")
def list_letters(
    every: Annotated[bool, typer.Option("--all", help="also those that are done")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the records that wait for a decision.

    Example: [bold]jangkau dead-letters list[/]
    """
    from rich.table import Table

    from shared import dead_letters
    from shared.database import Database

    async def work() -> list[tuple[str, "DeadLetter"]]:
        found = []
        for service in SERVICES:
            database = Database(_letter_settings(service), pool_size=1)
            try:
                async with database.transaction() as session:
                    letters = await dead_letters.listed(session, every=every)
                    found += [(service, letter) for letter in letters]
            finally:
                await database.close()
        return found

    letters = run(work())
    if as_json:
        typer.echo(json.dumps([_letter_values(service, letter) for service, letter in letters]))
        return
    if not letters:
        out.print("No dead letters.")
        return
    table = Table("service", "number", "consumer", "topic", "state", "attempts", "last", "error")
    for service, letter in letters:
        table.add_row(
            service, str(letter.id), letter.consumer, letter.topic, letter.state,
            str(letter.attempts), f"{letter.last_failed_at:%Y-%m-%d %H:%M}", letter.error[:80],
        )  # fmt: skip
    out.print(table)


def _letter_values(service: str, letter: "DeadLetter") -> dict[str, Any]:
    values = letter.model_dump(mode="json", exclude={"key", "payload"})
    return {
        "service": service,
        **values,
        "key": (letter.key or b"").decode(errors="backslashreplace"),
        "payload": (letter.payload or b"").decode(errors="backslashreplace"),
    }


@letters_app.command("show")
def show_letter(service: ServiceArgument, number: NumberArgument) -> None:
    """Show one record whole. It may hold personal data.

    Example: [bold]jangkau dead-letters show assignment 3[/]
    """

    async def nothing(session: Any, letter: Any) -> None:
        return None

    letter = run(_with_letter(service, number, nothing))
    out.print_json(json.dumps(_letter_values(service, letter)))


@letters_app.command("replay")
def replay_letter(
    service: ServiceArgument,
    number: NumberArgument,
    payload: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="file with the repaired event"),
    ] = None,
) -> None:
    """Send a record again, as it is or repaired; whoever has handled it drops it.

    Example: [bold]jangkau dead-letters replay assignment 3 --payload repaired.json[/]
    """
    from shared import dead_letters

    async def act(session: Any, letter: Any) -> None:
        repaired = payload.read_text(encoding="utf-8") if payload else None
        await dead_letters.replay(session, letter, payload=repaired)

    run(_with_letter(service, number, act))
    out.print(f"Dead letter {number} of {service} is on its way again.", highlight=False)


@letters_app.command("discard")
def discard_letter(service: ServiceArgument, number: NumberArgument) -> None:
    """Decide that a record is never handled.

    Example: [bold]jangkau dead-letters discard assignment 3[/]
    """
    from shared import dead_letters

    run(_with_letter(service, number, dead_letters.discard))
    out.print(f"Dead letter {number} of {service} is discarded.", highlight=False)


if __name__ == "__main__":
    main()
