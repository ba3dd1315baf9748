"""`jangkau message preview`: what one sees before anybody else does."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.cli import app
from services.notification import texts
from services.notification.gsm import segments, septets
from services.notification.text_check import PURPOSES


def shown(*arguments: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(app, ["message", "preview", *arguments], env=env)
    assert result.exit_code == code, result.output
    return result.output


def told(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(*arguments, "--json"))
    return found


def test_an_offer_is_shown_as_a_telephone_would_with_its_cost() -> None:
    printed = shown("offer", "--lang", "id")
    assert "lansia terlantar" in printed
    facts = told("offer", "--lang", "id")
    assert f"{facts['septets']} of 160 septets, 1 segment" in printed
    # Only broken into the lines of a small telephone.
    assert "".join(facts["text"].split()) in "".join(printed.replace("│", "").split())


def test_machines_get_the_text_and_what_it_costs() -> None:
    facts = told("offer", "--urgent", "--people", "3", "--drill")
    assert facts["text"].startswith("SIMULASI")
    assert "MENDESAK 3 org" in facts["text"]
    assert facts["septets"] == septets(facts["text"])
    assert facts["segments"] == segments(facts["text"]) == 1
    assert (facts["alphabet"], facts["language"], facts["drill"]) == ("GSM 7 bit", "id", True)


def test_a_mail_is_shown_with_its_subject() -> None:
    facts = told("assigned", "--channel", "email", "--lang", "en")
    assert facts["subject"].startswith("Assigned to you: abandoned elderly person")
    assert "segments" not in facts
    printed = shown("assigned", "--channel", "email", "--lang", "en")
    assert facts["subject"] in printed
    assert "budi@example.org" in printed


def test_without_a_purpose_all_are_listed() -> None:
    printed = shown()
    for name, entry in PURPOSES.items():
        assert name in printed
        assert entry.about in printed
    assert told().keys() == PURPOSES.keys()


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_every_purpose_can_be_seen_on_every_channel(purpose: str, language: str) -> None:
    seen = set()
    for why in PURPOSES[purpose].choices:
        chosen = ("--why", why) if why else ()
        facts = told(purpose, "--lang", language, *chosen)
        assert facts["segments"] <= PURPOSES[purpose].segments
        assert facts["why"] == (why or None)
        seen.add(facts["text"])
        assert told(purpose, "--lang", language, "--channel", "email", *chosen)["subject"]
    # Each choice is a sentence of its own, but for what one sentence is enough for.
    assert len(seen) == len(PURPOSES[purpose].choices)


def test_what_else_there_is_is_named_below() -> None:
    assert "too_late.accept" in shown("reply")
    assert "--why" not in shown("ping")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["offr"], "no purpose 'offr'"),
        (["offer", "--lang", "jv"], "no language 'jv'"),
        (["offer", "--channel", "fax"], "no channel 'fax'"),
        (["reply", "--why", "maybe"], "no sentence 'maybe'"),
        (["offer", "--people", "0"], "--people"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    arguments: list[str], sentence: str
) -> None:
    assert sentence in shown(*arguments, code=2)


def test_an_installation_tries_its_own_texts_before_they_are_in_force(tmp_path: Path) -> None:
    words = tmp_path / "words.id.toml"
    words.write_text('[closed]\ntaken_by_another = "sudah beres, Kak!"\n')
    folder = str(tmp_path)
    assert "sudah beres, Kak!" in shown("closed", "--texts", folder)
    assert "sudah beres, Kak!" in shown("closed", env={"JANGKAU_TEXTS": folder})
    assert "Kak!" not in shown("closed")
    words.write_text('[closed]\ntaken_by_anothr = "sudah beres, Kak!"\n')
    refused = "".join(shown("offer", "--texts", folder, code=1).split())
    assert "thereisnowordclosed.taken_by_anothr" in refused
    # And what was tried does not stay.
    assert texts.own_folder() is None
