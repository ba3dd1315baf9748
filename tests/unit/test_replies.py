"""Answers are read as a person would read them, or asked back; never guessed."""

import csv
import json
import random
import re
import time
import unicodedata
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ops.cli import app
from services.notification import texts
from services.notification.incoming.reading import Meaning, Reading, classify
from services.notification.incoming.reading.lexicon import lexicon
from services.notification.incoming.reading.remainder import WORDS_AT_MOST
from shared.codes import ALPHABET, numbered_code
from tests.typing_errors import mistyped

# The sender of the table has these two offers open.
OPEN = ("K7M2P", "QRSTW")
with Path(__file__).with_name("replies.csv").open(encoding="utf-8", newline="") as file:
    TABLE = list(csv.DictReader(file))


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["text"] or "nothing")
def test_an_answer_is_never_taken_for_what_it_is_not(row: dict[str, str]) -> None:
    reading = classify(row["text"], codes=OPEN)
    assert reading.meaning in (row["meaning"], "ask")
    assert reading.code == (row["code"] or None)
    if row["outcome"]:
        assert reading.outcome == row["outcome"]
    assert (reading.why is None) == (reading.meaning != "ask")


def test_at_least_98_percent_of_the_answers_are_understood() -> None:
    assert len(TABLE) >= 220
    right = sum(classify(row["text"], codes=OPEN).meaning == row["meaning"] for row in TABLE)
    assert right / len(TABLE) >= 0.98


def test_case_fillers_and_repeated_letters_change_nothing() -> None:
    for row in TABLE:
        if row["meaning"] in ("accept", "decline", "arrived", "done", "obstacle"):
            for text in (row["text"].upper(), row["text"] + " pak", "pak " + row["text"]):
                assert classify(text, codes=OPEN).meaning in (row["meaning"], "ask"), text


# --- codes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("K7M2P", "K7M2P"),
        ("ya k7m2p.", "K7M2P"),
        ("K7M2PYA", "K7M2P"),
        ("yak7m2p", "K7M2P"),
        ("KBDFR YA", "KBDFR"),
        ("besar sekali rumahnya", None),
        ("DEKAT", None),
        ("SEGAR", None),
        ("25mnt lagi sampai", None),
        ("33255", None),
        ("saya di RT2RW", None),
    ],
)
def test_a_code_is_found_without_knowing_the_senders_codes(text: str, code: str | None) -> None:
    assert classify(text).code == code


@pytest.mark.parametrize(
    ("text", "codes", "code"),
    [
        ("ya kejar", ["KEJAR"], "KEJAR"),  # a word, but also theirs
        ("ya kejar", ["KEJAB"], None),  # a word near to a code is a word
        ("K7M2 YA", ["K7M2P"], "K7M2P"),
        ("K7M2PP YA", ["K7M2P"], "K7M2P"),
        ("KM72P YA", ["K7M2P"], "K7M2P"),
        ("8OZGT ya", ["BQ2GT", "K7M2P"], "BQ2GT"),  # three letters taken for others
        ("K 7 M 2 P ya", ["K7M2P"], "K7M2P"),
        ("K7M2X YA", ["K7M2P", "K7M2R"], "K7M2X"),  # near to two: as it stands
        ("K7M2R K7M2R ya", ["K7M2P", "K7M2R"], "K7M2R"),
        ("ABCD2 ya", ["K7M2P"], "ABCD2"),
        ("ya", ["nonsense", "", "K7M2P!"], None),
    ],
)
def test_the_senders_own_codes_are_found_through_slips(
    text: str, codes: list[str], code: str | None
) -> None:
    assert classify(text, codes=codes).code == code


def test_two_codes_are_asked_back() -> None:
    reading = classify("K7M2P ya, QRSTW tidak", codes=OPEN)
    assert (reading.meaning, reading.code, reading.why) == ("ask", None, "two_codes")


@given(number=st.integers(0, 24_000_000), answer=st.sampled_from(["YA", "tidak", "Siap pak"]))
def test_any_code_of_ours_is_found_where_it_is_known(number: int, answer: str) -> None:
    code = numbered_code(number)
    for text in (f"{code} {answer}", f"{answer} {code.lower()}", f"#{code}:{answer}"):
        reading = classify(text, codes=[code])
        assert reading.code == code
        assert reading.meaning == ("decline" if answer == "tidak" else "accept")


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("YA k7m2p, saya segera ke sana", "saya segera ke sana"),
        ("K7M2P YA", ""),
        ("siap komandan", ""),
        ("siap, alamatnya dimana?", "alamatnya dimana?"),
        ("K7M2P KENDALA (motor mogok)", "motor mogok"),
        ("kendala motor mogok", "motor mogok"),
        ("ban bocor", "ban bocor"),
        ("K7M2P TIDAK, anak sakit", "anak sakit"),
        ("tidak bisa sekarang tapi 2 jam lagi bisa", "tapi 2 jam lagi bisa"),
        # Half a sentence would say the opposite.
        ("tidak bisa sore ini ke sana", "tidak bisa sore ini ke sana"),
        ("sudah diantar ke RSUD", "sudah diantar ke RSUD"),
        ("selesai,\nsudah\tdiantar\x00 ke RSUD", "sudah diantar ke RSUD"),
        ("ini siapa K7M2P ?", "ini siapa ?"),
    ],
)
def test_what_a_person_adds_is_kept_as_written(text: str, words: str) -> None:
    assert classify(text, codes=OPEN).words == words


# --- anything at all ---------------------------------------------------------------------------

PIECES = st.sampled_from(
    [" ".join(phrase) for phrase in lexicon().kinds]
    + [
        *OPEN,
        "k7m2pya",
        "?",
        ".",
        ",",
        "\n",
        "tapi",
        "tidak",
        "\u202e",
        "\x1b[2J",
        "👍🏽",
        "ﬀ",
        "İ",
    ]
)


@settings(max_examples=400, deadline=None)
@given(text=st.text() | st.lists(PIECES | st.text(max_size=6), max_size=12).map(" ".join))
@example("\ud800 ya")
@example("K7M2P\x00")
@example("ŉ" * 50)
def test_no_text_breaks_the_reading(text: str) -> None:
    for codes in ((), OPEN):
        reading = classify(text, codes=codes)
        assert reading == classify(text, codes=codes)
        assert reading.meaning in get_args(Meaning)
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in reading.words)
        assert len(reading.words) <= WORDS_AT_MOST
        assert reading.code is None or (len(reading.code) == 5 and set(reading.code) <= {*ALPHABET})
        assert reading.outcome is None or reading.meaning == "done"
        assert (reading.why is None) == (reading.meaning != "ask")


@given(text=st.lists(PIECES, max_size=8).map(" ".join))
def test_codes_in_any_order_give_the_same_reading(text: str) -> None:
    assert classify(text, codes=OPEN) == classify(text, codes=OPEN[::-1])


@pytest.mark.parametrize(
    "piece",
    ["ya ", "x", "k7m2p", "tidka ", "👍", "\n", "a.", "ya tidak, ", "2", "\u0301", "kendla?", " "],
)
def test_huge_texts_are_read_in_no_time(piece: str) -> None:
    classify(piece, codes=OPEN)
    started = time.process_time()
    classify((piece * 100_000)[:100_000], codes=OPEN)
    assert time.process_time() - started < 0.5  # a loaded machine; a few ms otherwise


# --- typing errors -----------------------------------------------------------------------------

OPPOSITES = {"accept": "decline", "decline": "accept"}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("tidak bisa", "decline"), ("saya tidak sanggup", "decline"), ("belum bisa", "decline"),
        ("bisa pak", "accept"), ("siap meluncur", "accept"), ("berangkat", "accept"),
        ("sudah sampai", "arrived"), ("belum sampai", "ask"), ("sudah selesai", "done"),
        ("belum selesai", "ask"), ("kendala banjir", "obstacle"), ("tidak jadi", "decline"),
    ],
)  # fmt: skip
def test_one_slip_of_the_thumb_never_makes_the_opposite(text: str, meaning: str) -> None:
    chance = random.Random(text)
    for _ in range(300):
        words = text.split()
        at = chance.randrange(len(words))
        if len(words[at]) < 4:
            continue
        words[at] = mistyped(words[at], chance)
        found = classify(" ".join(words)).meaning
        assert found != OPPOSITES.get(meaning), words
        if meaning == "ask":
            assert found not in ("arrived", "done"), words


# --- what stands around a word -----------------------------------------------------------------

NOT = ("tidak", "tdk", "gak", "ga", "g", "nggak", "ndak", "dak", "blm", "belum", "idak", "enggak")
ABLE = ("bisa", "bs", "sanggup", "siap", "pacak", "bersedia", "mau", "dapat", "ikut")
BEFORE = ("", "maaf ", "pak ", "saya ", "siap ", "ya ", "iya, ", "ok ", "K7M2P ", "waduh ")
AFTER = ("", " pak", " ya", " datang", " ke sana", " hari ini", " otw", " sampai lokasi", "!!")


@given(
    st.sampled_from(BEFORE), st.sampled_from(NOT), st.sampled_from(["", "saya ", "juga ", "akan "]),
    st.sampled_from(ABLE), st.sampled_from(AFTER),
)  # fmt: skip
def test_what_is_denied_is_never_accepted(
    before: str, denial: str, between: str, able: str, after: str
) -> None:
    text = f"{before}{denial} {between}{able}{after}"
    assert classify(text, codes=OPEN).meaning in ("decline", "ask"), text


@given(
    st.sampled_from(["belum", "blm", "tidak", "gak", "hampir", "kalau sudah", "nanti kalau"]),
    st.sampled_from(["sampai", "tiba", "selesai", "beres", "nyampe", "di lokasi", "diantar"]),
    st.sampled_from(["", " pak", " juga", " ke lokasi", " orangnya"]),
)
def test_what_has_not_happened_yet_is_not_reported_as_happened(
    denial: str, what: str, after: str
) -> None:
    text = f"saya {denial} {what}{after}"
    assert classify(text).meaning not in ("arrived", "done"), text


# One sentence, in which a code does not say that it is our command.
PLAIN = [
    row["text"]
    for row in TABLE
    if row["meaning"] in ("accept", "arrived", "done", "decline")
    and not re.search(r"[,.?]|\b(tapi|tp|but)\b|k ?7", row["text"].lower())
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_ends_in_a_question_mark_is_asked_back(text: str) -> None:
    assert classify(f"{text}?", codes=OPEN).meaning == "ask"


# --- what our own messages tell people to write ------------------------------------------------


def _examples() -> list[str]:
    """Whatever our templates and sentences show behind an answer code."""
    found = set()
    for path in texts.TEMPLATES.glob("*.t*"):
        content = path.read_text(encoding="utf-8")
        content = re.sub(r"\{\{ *code *\}\}|\{code\}|%s", "K7M2P", content)
        found |= set(re.findall(r"K7M2P (?:\{\{ \")?([A-Z]{2,}(?: \((?:apa|what)\))?)", content))
        found |= {
            word
            for run in re.findall(r"K7M2P (?:\{\{ \")?[A-Z]+(?:/[A-Z]+)+", content)
            for word in run.split()[-1].strip('"').split("/")
        }
    return sorted(found)


COMMANDS = {
    "YA": "accept", "TIDAK": "decline", "TIBA": "arrived", "SELESAI": "done", "KENDALA": "obstacle",
}  # fmt: skip


def test_our_templates_show_all_commands_and_no_others() -> None:
    assert {shown.split()[0] for shown in _examples()} == set(COMMANDS)


@pytest.mark.parametrize("shown", _examples())
@pytest.mark.parametrize("form", ["K7M2P {}", "k7m2p {}", "{} K7M2P", "{}", "K7M2P-{}", "K7M2P{}"])
def test_what_our_messages_show_is_understood(shown: str, form: str) -> None:
    for text in (form.format(shown), form.format(shown.lower())):
        for codes in ((), OPEN):
            reading = classify(text, codes=codes)
            assert reading.meaning == COMMANDS[shown.split()[0]]
            assert reading.code == ("K7M2P" if "2" in form else None)


def test_stop_and_mulai_are_understood() -> None:
    assert classify("STOP") == Reading("stop", None, "")
    assert classify("MULAI") == Reading("start", None, "")


# --- the command -------------------------------------------------------------------------------


def test_the_command_prints_json_for_machines() -> None:
    ran = CliRunner().invoke(
        app, ["message", "classify", "siap, 15 menit lagi", "k7m2p tdk bs", "hmm", "--json"]
    )
    assert ran.exit_code == 0
    first, second, third = json.loads(ran.stdout)
    assert first == {
        "text": "siap, 15 menit lagi", "meaning": "accept", "code": None,
        "words": "15 menit lagi", "outcome": None, "why": None,
    }  # fmt: skip
    assert (second["meaning"], second["code"], second["words"]) == ("decline", "K7M2P", "")
    assert (third["meaning"], third["why"]) == ("ask", "not_understood")


def test_the_command_shows_people_a_table_and_takes_brackets_for_brackets() -> None:
    ran = CliRunner().invoke(app, ["message", "classify", "KENDALA [bold] banjir"])
    assert ran.exit_code == 0
    assert "obstacle" in ran.stdout
    assert "[bold] banjir" in ran.stdout


def test_the_command_knows_codes_that_it_is_told() -> None:
    ran = CliRunner().invoke(app, ["message", "classify", "K7MZP ya", "--code", "K7M2P", "--json"])
    assert json.loads(ran.stdout)[0]["code"] == "K7M2P"


def _set(tmp_path: Path, content: str) -> str:
    file = tmp_path / "set.csv"
    file.write_text(content, encoding="utf-8")
    return str(file)


def test_the_command_counts_a_set_by_group_and_fails_on_an_act_that_was_not_meant(
    tmp_path: Path,
) -> None:
    file = _set(
        tmp_path,
        "meaning,allowed,group,text\n"
        "accept,,plain,siap pak\n"
        'accept,accept|ask,plain,"siap, alamatnya dimana?"\n'
        "accept,,plain,siap lur\n"
        "decline,,no,saya kecelakaan\n"
        "ask,ask|decline,wrong [b],YA\n",
    )
    ran = CliRunner().invoke(app, ["message", "classify", "--file", file])
    assert ran.exit_code == 1
    assert "accept, not meant (wrong [b]): YA" in ran.stdout
    counted = CliRunner().invoke(app, ["message", "classify", "--file", file, "--json"])
    assert counted.exit_code == 1
    assert json.loads(counted.stdout) == [
        {"name": "plain", "sentences": 3, "right": 2, "asked_back": 1, "another": 0,
         "not_meant": []},
        {"name": "no", "sentences": 1, "right": 0, "asked_back": 0, "another": 1, "not_meant": []},
        {"name": "wrong [b]", "sentences": 1, "right": 0, "asked_back": 0, "another": 0,
         "not_meant": [["YA", "accept"]]},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["misleading.csv", "replies.csv"])
def test_the_command_finds_no_act_that_was_not_meant_in_our_own_sets(name: str) -> None:
    file = Path(__file__).with_name(name)
    known = [option for code in OPEN for option in ("--code", code)]
    ran = CliRunner().invoke(app, ["message", "classify", "--file", str(file), *known])
    assert ran.exit_code == 0, ran.stdout


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("text\nsiap\n", "'meaning' is missing"),
        ("meaning,text\nmaybe,siap\n", "line 2: 'maybe' is no meaning"),
    ],
)
def test_a_file_that_is_no_set_is_refused_with_its_line(
    tmp_path: Path, content: str, problem: str
) -> None:
    ran = CliRunner().invoke(app, ["message", "classify", "--file", _set(tmp_path, content)])
    assert ran.exit_code == 2
    assert problem in " ".join(re.sub(r"[│╭╮╰╯─]", " ", ran.output).split())


def test_the_command_wants_a_text_or_a_set(tmp_path: Path) -> None:
    both = ["message", "classify", "YA", "--file", _set(tmp_path, "meaning,text\n")]
    for arguments in (["message", "classify"], both):
        assert CliRunner().invoke(app, arguments).exit_code == 2
