"""`jangkau message …`: what messages say, and what is understood of the answers."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli_preview import preview
from ops.terminal import out

if TYPE_CHECKING:
    from services.notification.incoming.reading import Reading

# Heavy modules are imported where they are needed, so that every command answers at once.

app = typer.Typer(
    no_args_is_help=True,
    help="What messages say, and what is understood of the answers.\n\n"
    "Example: jangkau message preview offer --lang id",
)
app.command()(preview)


@app.command()
def classify(
    texts: Annotated[list[str], typer.Argument(help="what a volunteer might write")],
    code: Annotated[
        list[str] | None, typer.Option(help="answer code of an open offer of theirs; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list")] = False,
) -> None:
    """Show what each text would be taken for: accept, decline, arrived, done, obstacle, stop, start
    or ask.

    Nothing is sent or stored. `ask` is a question back, with the reason; whether somebody who says
    no hands a case back, the case decides.

    Example: [bold]jangkau message classify "siap, 15 menit lagi" "K7M2P tdk bs" --json[/]
    """
    from services.notification.incoming import reading

    readings = [(text, reading.classify(text, codes=code or ())) for text in texts]
    if as_json:
        typer.echo(json.dumps([_values(text, reading) for text, reading in readings]))
    else:
        _show(readings)


def _values(text: str, reading: "Reading") -> dict[str, str | None]:
    return {
        "text": text.encode("utf-8", "replace").decode(),
        "meaning": reading.meaning,
        "code": reading.code,
        "words": reading.words,
        "outcome": reading.outcome,
        "why": reading.why,
    }


COLOURS = {"accept": "green", "decline": "red", "obstacle": "yellow", "ask": "magenta"}


def _show(readings: "list[tuple[str, Reading]]") -> None:
    from rich.table import Table
    from rich.text import Text

    from shared.words import one_line

    table = Table("text", "meaning", "code", "words")
    for text, reading in readings:
        detail = reading.outcome or reading.why
        meaning = f"{reading.meaning} ({detail})" if detail else reading.meaning
        # Text, not markup: brackets in what people write are brackets.
        table.add_row(
            Text(one_line(text)),
            Text(meaning, style=COLOURS.get(reading.meaning, "cyan")),
            Text(reading.code or ""),
            Text(reading.words),
        )
    out.print(table)
