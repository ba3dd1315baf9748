"""Somebody's words, handed to an officer as a quotation."""

from hypothesis import given
from hypothesis import strategies as st

from services.notification import officers, texts
from services.notification.gsm import is_gsm, segments
from tests.factories import coordinator

STRANGER = "+6281377778888"


@given(text=st.text(max_size=1200), code=st.sampled_from([None, "ABCD2345"]))
def test_a_quotation_is_one_line_one_segment_and_ends_where_it_says(
    text: str, code: str | None
) -> None:
    written = texts.forwarded(officers.quoted(text), STRANGER, coordinator(), code=code)
    short = written.short_text
    assert is_gsm(short)
    assert segments(short) == 1
    assert len(short.splitlines()) == 1
    assert STRANGER in short
    assert short.count('"') == 2
    assert short.endswith('"')
    # No control and no invisible sign reaches the letter either.
    assert not any(ord(c) in (0x202E, 0x200B, 0xFEFF) for c in written.long_text)


def test_as_much_of_the_words_as_fits_is_in_the_sms_and_all_in_the_mail() -> None:
    words = "ada kakek tidur di halte depan pasar, sudah dua hari tidak makan, " * 10
    written = texts.forwarded(officers.quoted(words), STRANGER, coordinator())
    assert len(written.short_text) == 160
    assert words.strip() in written.long_text


def test_words_that_look_like_a_field_stay_words() -> None:
    written = texts.forwarded(officers.quoted("{code} {sender} {{ 7*7 }}"), STRANGER, coordinator())
    assert "{{ 7*7 }}" in written.long_text
    assert STRANGER in written.short_text
