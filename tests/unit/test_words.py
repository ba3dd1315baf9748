"""What people write: nothing of it deceives, and nothing that people write is refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.words import MARKS_AT_MOST, Line, Sentences, one_line, without_control

LINE: TypeAdapter[str] = TypeAdapter(Line)
SENTENCES: TypeAdapter[str] = TypeAdapter(Sentences)

DECEIVING = {
    "turned round": "Siti \u202eitakuS",
    "isolated": "Siti \u2066Aminah\u2069",
    "a mark of direction": "Siti\u200e Aminah",
    "Arabic mark of direction": "Siti\u061c Aminah",
    "a space of no width": "Si\u200bti",
    "a joiner of no width": "Si\u200dti",
    "a word joiner": "Si\u2060ti",
    "a mark of byte order": "Siti\ufeff Aminah",
    "a soft hyphen": "Si\u00adti",
    "tags": "Siti\U000e0041\U000e0042 A",
    "a selector": "Siti\U000e0101 A",
    "private use": "Siti \ue000 A",
    "private use far up": "Siti \U0010fffd A",
    "half of a character": "Siti \ud800 A",
    "no character": "Siti \ufffe A",
    "a filler of Hangul": "Siti\u3164Aminah",
    "the blank of Braille": "Siti\u2800Aminah",
    "a separator of lines": "Siti\u2028Aminah",
    "a flood of marks": "S" + "\u0301" * (MARKS_AT_MOST + 1) + "iti",
    "marks of all kinds": "S" + "\u0301\u0489\u20dd\u0336\u0337" + "iti",
}
WRITTEN = [
    "Siti Aminah",
    "Dr. H. Mas'ud, S.Sos.",
    "Nguyễn Thị Minh Khai",
    "Ngu\u0302\u0303n decomposed",
    "محمد أمين",
    "अनिल",
    "陳大文",
    "Émile",
    "ส้มตำ",
]
# Families, skin colours, flags, keys, hearts: as telephones write them.
EMOJI = [
    "tolong 👨‍👩‍👧‍👦 di pasar",
    "terima kasih ❤️",
    "👍🏽",
    "🇮🇩",
    "1️⃣ kakek",
    "🏳️‍🌈",
    "👩🏽‍⚕️ datang",
    "‼️",
]


@pytest.mark.parametrize("text", DECEIVING.values(), ids=DECEIVING)
def test_what_deceives_is_refused_in_names_and_in_words(text: str) -> None:
    for kind in (LINE, SENTENCES):
        with pytest.raises(ValidationError):
            kind.validate_python(text)


@pytest.mark.parametrize("text", WRITTEN)
def test_names_of_all_writings_are_taken(text: str) -> None:
    assert LINE.validate_python(text) == text
    assert SENTENCES.validate_python(text) == text
    assert one_line(text) == text


@pytest.mark.parametrize("text", EMOJI)
def test_emoji_in_sentences_stay_whole(text: str) -> None:
    assert SENTENCES.validate_python(text) == text
    assert one_line(text) == without_control(text) == text


def test_a_joiner_stands_in_no_name() -> None:
    with pytest.raises(ValidationError, match=r"position 2 \(U\+200D\)"):
        LINE.validate_python("👨\u200d👩")


@pytest.mark.parametrize(
    "text", [text for name, text in DECEIVING.items() if name != "half of a character"]
)
def test_what_came_in_is_shown_without_what_deceives(text: str) -> None:
    shown = one_line(text)
    assert SENTENCES.validate_python(shown) == shown
    assert shown.startswith("S")


HOSTILE = st.text(alphabet="ab \u0301\u0489\u200b\u200d\ufe0f\ufffe\u2800\u202e👍é\n", max_size=40)


@given(st.text(max_size=60) | HOSTILE)
def test_what_is_shown_would_be_taken(text: str) -> None:
    shown = one_line(text)
    if shown:
        assert SENTENCES.validate_python(shown) == shown
    assert one_line(shown) == shown, "once is enough"
    for character in shown:
        assert unicodedata.category(character) not in ("Cc", "Co", "Cs", "Zl", "Zp")


@given(HOSTILE)
def test_no_letter_carries_more_marks_than_writings_have(text: str) -> None:
    marks = 0
    for character in one_line(text):
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        assert marks <= MARKS_AT_MOST
