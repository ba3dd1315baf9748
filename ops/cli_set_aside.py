"""`jangkau set-aside`: cases that wait behind a record that cannot go on now."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from ops.terminal import fail, out, run
from shared.settings import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlmodel.ext.asyncio.session import AsyncSession

    from shared.set_aside import Aside

# Heavy modules are imported where they are needed, so that every command answers at once.

app = typer.Typer(
    no_args_is_help=True,
    help="Cases that wait behind a record that cannot go on now; it is tried again by itself.\n\n"
    "Example: jangkau set-aside list",
)
ServiceArgument = Annotated[str, typer.Argument(help="whose: intake, assignment, notification")]


async def _in_one_transaction(service: str, act: "Callable[[AsyncSession], Awaitable[Any]]") -> Any:
    from shared.database import Database
    from shared.settings import Settings

    if service not in SERVICES:
        raise fail(f"There is no service {service}; there are {', '.join(SERVICES)}.", code=2)
    database = Database(Settings().database_url_of(service), pool_size=1)
    try:
        async with database.transaction() as session:
            return await act(session)
    finally:
        await database.close()


@app.command("list")
def list_waiting(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the cases that wait, with what the record in front of each says.

    Example: [bold]jangkau set-aside list[/]
    """
    from rich.table import Table

    from shared import set_aside

    async def work() -> "list[tuple[str, Aside]]":
        return [
            (service, one)
            for service in SERVICES
            for one in await _in_one_transaction(service, set_aside.listed)
        ]

    waiting = run(work())
    if as_json:
        typer.echo(json.dumps([{"service": s, **asdict(one)} for s, one in waiting], default=str))
        return
    if not waiting:
        out.print("No case waits.")
        return
    table = Table("consumer", "case", "records", "tries", "since (UTC)", "why")
    for _, one in waiting:
        table.add_row(
            one.consumer, str(one.case_id), str(one.records), str(one.attempts),
            f"{one.since:%m-%d %H:%M}", one.error[:60],
        )  # fmt: skip
    out.print(table)


@app.command()
def retry(service: ServiceArgument) -> None:
    """Let every case that waits be tried at once, as its cause is mended.

    Example: [bold]jangkau set-aside retry assignment[/]
    """
    from shared import set_aside

    cases = run(_in_one_transaction(service, set_aside.retry_now))
    out.print(f"Cases of {service} that are tried within a second: {cases}.", highlight=False)


@app.command("give-up")
def give_up(
    service: ServiceArgument,
    consumer: Annotated[str, typer.Argument(help="as `jangkau set-aside list` says")],
    case: Annotated[UUID, typer.Argument(help="as `jangkau set-aside list` says")],
) -> None:
    """Make the record in front of a case a dead letter, so that those behind it go on.

    Example: [bold]jangkau set-aside give-up assignment assignment.notification-answers CASE[/]
    """
    from shared import set_aside

    letter = run(
        _in_one_transaction(service, lambda session: set_aside.give_up(session, consumer, case))
    )
    if letter is None:
        raise fail(f"Nothing of case {case} waits in {consumer}.")
    out.print("It is a dead letter now: `jangkau dead-letters list`.", highlight=False)
