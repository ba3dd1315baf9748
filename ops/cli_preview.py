"""`jangkau message preview`: every text as it would go out, with sample values."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ops.terminal import fail, out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from services.notification.text_check import Purpose, Sample
    from services.notification.texts import Texts

# Heavy modules are imported where they are needed, so that every command answers at once.

CHANNELS = ("sms", "email")
# A bubble of a small telephone, and a mail, in columns.
BUBBLE = 46
LETTER = 78


def preview(
    purpose: Annotated[str | None, typer.Argument(help="which; without it they are listed")] = None,
    lang: Annotated[str, typer.Option(help="id or en")] = "id",
    urgent: Annotated[bool, typer.Option("--urgent", help="an urgent case")] = False,
    drill: Annotated[bool, typer.Option("--drill", help="a rehearsal")] = False,
    people: Annotated[int, typer.Option(min=1, max=1000, help="how many need help")] = 1,
    channel: Annotated[str, typer.Option(help="sms or email")] = "sms",
    why: Annotated[
        str | None, typer.Option(help="which of its sentences; the list names them")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--texts", help="an installation's own texts; default: JANGKAU_TEXTS"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show a message as it would go out, with sample values, and what it costs.

    Example: [bold]jangkau message preview offer --lang id --urgent[/]
    """
    from services.notification import texts
    from services.notification.text_check import PURPOSES, Sample

    own = folder or os.environ.get("JANGKAU_TEXTS")
    try:
        if own:
            texts.use(own)
            # What the service would refuse at start, it refuses here.
            texts.check()
        if purpose is None:
            _list(PURPOSES, as_json=as_json)
        else:
            _preview(
                purpose, channel, why, as_json=as_json,
                sample=replace(Sample(), language=lang, urgent=urgent, drill=drill, people=people),
            )  # fmt: skip
    except texts.BrokenTexts as error:
        raise fail(escape(str(error))) from None
    finally:
        texts.use(None)


def _preview(
    purpose: str, channel: str, why: str | None, *, sample: "Sample", as_json: bool
) -> None:
    from services.notification.text_check import PURPOSES
    from services.notification.texts import LANGUAGES

    known = {"purpose": (purpose, PURPOSES), "language": (sample.language, LANGUAGES)}
    for what, (given, ones) in {**known, "channel": (channel, CHANNELS)}.items():
        if given not in ones:
            raise fail(
                escape(f"There is no {what} {given!r}; known are {', '.join(ones)}."), code=2
            )
    entry = PURPOSES[purpose]
    choice = entry.choices[0] if why is None else why
    if choice not in entry.choices:
        choices = ", ".join(one for one in entry.choices if one)
        raise fail(
            escape(f"{purpose} has no sentence {choice!r}; it has {choices or 'only one'}."), code=2
        )
    written = entry.write(sample, choice)
    told: dict[str, Any] = {
        "purpose": purpose,
        "why": choice or None,
        "language": sample.language,
        "channel": channel,
        "drill": sample.drill,
        **_facts(written, channel),
    }
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        _show(entry, told)


def _facts(written: "Texts", channel: str) -> dict[str, Any]:
    from services.notification.gsm import is_gsm, segments, septets

    if channel == "email":
        return {"subject": written.subject, "text": written.long_text}
    short = written.short_text
    plain = is_gsm(short)
    return {
        "text": short,
        "alphabet": "GSM 7 bit" if plain else "UCS-2",
        "septets": septets(short) if plain else None,
        "segments": segments(short),
    }


def _list(purposes: "Mapping[str, Purpose]", *, as_json: bool) -> None:
    from rich.table import Table

    if as_json:
        listed = {
            name: {"about": entry.about, "why": [one for one in entry.choices if one]}
            for name, entry in purposes.items()
        }
        typer.echo(json.dumps(listed, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("purpose", style="bold", no_wrap=True)
    table.add_column("when it is sent", no_wrap=True)
    table.add_column("sentences", style="dim", justify="right")
    for name, entry in purposes.items():
        table.add_row(name, entry.about, str(len(entry.choices)))
    out.print(table)
    out.print("\nOne of them: [bold]jangkau message preview offer --lang id --urgent[/]")


def _show(entry: "Purpose", told: dict[str, Any]) -> None:
    from rich.text import Text

    kind = " ".join(filter(None, (told["purpose"], told["why"])))
    heading = f"{kind} · {told['language']} · {told['channel']}"
    out.print(Text.assemble((heading, "bold"), f"  {entry.about}"), highlight=False)
    if told["channel"] == "email":
        out.print(_letter(told))
    else:
        out.print(_bubble(told["text"]))
        out.print(_cost(told), highlight=False)
    others = [one for one in entry.choices if one and one != told["why"]]
    if others:
        out.print(f"\n[dim]Others by --why: {', '.join(others)}[/]", highlight=False)


def _bubble(text: str) -> "RenderableType":
    from rich import box
    from rich.panel import Panel

    width = min(BUBBLE, out.width)
    return Panel(_linked(text), box=box.ROUNDED, width=width, padding=(0, 1), border_style="green")


def _letter(told: dict[str, Any]) -> "RenderableType":
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.text import Text

    subject = Text(told["subject"], style="bold")
    body = _linked(told["text"].rstrip())
    return Panel(
        Group(subject, Rule(style="dim"), body),
        box=box.ROUNDED,
        width=min(LETTER, out.width),
        padding=(0, 1),
        border_style="cyan",
    )


def _linked(text: str) -> Any:
    """What telephones and mail programs make clickable is underlined."""
    from rich.text import Text

    shown = Text(text, overflow="fold")
    shown.highlight_regex(r"https?://\S+", "underline cyan")
    return shown


def _cost(told: dict[str, Any]) -> Any:
    from rich.text import Text

    from services.notification.gsm import SEGMENT_SEPTETS

    count = told["segments"]
    segments = "1 segment" if count == 1 else f"{count} segments"
    if told["septets"] is None:
        return Text(f"{segments}, in UCS-2: a character is not in the alphabet of SMS", "bold red")
    used, wide = told["septets"], 20
    filled = min(wide, round(wide * used / SEGMENT_SEPTETS))
    return Text.assemble(
        ("█" * filled, "green" if count == 1 else "bold red"),
        ("░" * (wide - filled), "dim"),
        f" {used} of {SEGMENT_SEPTETS} septets, {segments}",
    )
