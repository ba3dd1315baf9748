"""`jangkau message …`: what messages say, and what is understood of the answers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli_preview import preview
from ops.terminal import out

if TYPE_CHECKING:
    from ops.reading_sets import Counted
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
    texts: Annotated[list[str] | None, typer.Argument(help="what a volunteer might write")] = None,
    code: Annotated[
        list[str] | None, typer.Option(help="answer code of an open offer of theirs; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list")] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="CSV of sentences: meaning, text and, if you like, allowed and group"),
    ] = None,
) -> None:
    """Show what each text would be taken for: accept, decline, arrived, done, obstacle, stop,
    start, off_duty, duty_page or ask.

    Nothing is sent or stored. `ask` is a question back, with the reason; whether somebody who says
    no hands a case back, the case decides.

    With [bold]--file[/] the sentences of a set are counted by group: right, asked back, and acts
    that were not meant. An act (accept, arrived, done) was not meant where `allowed`, meanings
    with | between them, or else `meaning`, does not name it; then the exit code is 1.

    Example: [bold]jangkau message classify "siap, 15 menit lagi" "K7M2P tdk bs" --json[/]
    """
    from services.notification.incoming import reading

    if file is not None:
        if texts:
            raise typer.BadParameter("either texts or --file, not both")
        _check_set(file, code or [], as_json=as_json)
        return
    if not texts:
        raise typer.BadParameter("say what to read: a text, or --file with a set of them")
    readings = [(text, reading.classify(text, codes=code or ())) for text in texts]
    if as_json:
        typer.echo(json.dumps([_values(text, reading) for text, reading in readings]))
    else:
        _show(readings)


def _check_set(file: Path, codes: list[str], *, as_json: bool) -> None:
    """Print how a set is read.

    Raises:
        typer.BadParameter: the file is no such set.
        typer.Exit: an act was taken that was not meant.
    """
    from ops import reading_sets

    try:
        counted = reading_sets.counted(reading_sets.read(file), codes=codes)
    except reading_sets.NoSetError as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        typer.echo(json.dumps([asdict(group) for group in counted]))
    else:
        _show_counted(counted)
    if any(group.not_meant for group in counted):
        raise typer.Exit(1)


def _show_counted(counted: "list[Counted]") -> None:
    from rich.table import Table
    from rich.text import Text

    from shared.words import one_line

    table = Table("group", "sentences", "right", "asked back", "another", "acts not meant")
    for group in counted:
        figures = (group.sentences, group.right, group.asked_back, group.another)
        wrong = len(group.not_meant)
        style = "red" if wrong else "green"
        table.add_row(Text(group.name), *map(str, figures), Text(str(wrong), style=style))
    out.print(table)
    for group in counted:
        for text, meaning in group.not_meant:
            out.print(Text(f"{meaning}, not meant ({group.name}): {one_line(text)}", style="red"))


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
