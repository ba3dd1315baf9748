"""What a message says, and that it costs one SMS segment."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification import texts
from services.notification.texts import GSM_BASIC, GSM_EXTENDED, SEGMENT_SEPTETS, septets
from shared.events import Category, OfferedVolunteer, Urgency
from tests.factories import NOON, made_offer, place

LONG = "Kampung Transmigrasi Sungai Selan Atas Bagian Timur Laut Dekat Jembatan Lama Nomor Dua"
NAMES = ("Berok", "Sungaï Selàn", "Ñuñoa ẞ", "村落", "[Desa] {Baru} €", "", LONG)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("category", get_args(Category))
def test_every_offer_fits_into_one_sms_segment(category: Category, name: str) -> None:
    for urgency, drill, people, distance_m in itertools.product(
        get_args(Urgency), (False, True), (1, 1000), (0.0, 40_000.0)
    ):
        offer = made_offer(
            category=category,
            urgency=urgency,
            people=people,
            distance_m=distance_m,
            place=place(village_name=name or None, subdistrict_name=name or "Koba"),
        )
        short = texts.offer(offer, drill=drill).short_text
        assert septets(short) <= SEGMENT_SEPTETS
        # Whatever had to be cut, these are what the volunteer cannot do without.
        assert short.count("K7P2M") == 3
        assert "YA" in short
        assert "12.10 WIB" in short
        assert ("SIMULASI" in short) is drill
        assert ("MENDESAK" in short) is (urgency == "urgent")


@given(village=st.text(max_size=100), subdistrict=st.text(max_size=100))
def test_no_place_name_can_break_the_segment(village: str, subdistrict: str) -> None:
    offer = made_offer(
        category="mental_illness",
        urgency="urgent",
        people=1000,
        place=place(village_name=village, subdistrict_name=subdistrict),
    )
    assert septets(texts.offer(offer, drill=True).short_text) <= SEGMENT_SEPTETS


@given(st.text())
def test_every_text_has_a_form_in_the_gsm_alphabet(text: str) -> None:
    septets(texts.gsm(text))


def test_accents_go_and_foreign_letters_become_question_marks() -> None:
    assert texts.gsm("Pangkalpinâng 村 é") == "Pangkalpinang ? é"


def test_a_character_outside_the_alphabet_has_no_length_in_septets() -> None:
    with pytest.raises(ValueError, match="GSM 7 bit"):
        septets("村")


def test_an_extended_character_costs_two_septets() -> None:
    assert septets("a€") == 3
    assert not GSM_BASIC & GSM_EXTENDED
    assert len(GSM_BASIC) == 127  # all of the table but the escape itself


def test_the_short_text_is_an_indonesian_sentence() -> None:
    assert texts.offer(made_offer()).short_text == (
        "JANGKAU K7P2M: lansia terlantar, Berok, Kec. Koba, 3,2 km dari Anda. "
        "Bisa datang? Balas K7P2M YA atau K7P2M TIDAK sebelum 12.10 WIB."
    )


def test_the_short_text_says_what_is_special() -> None:
    offer = made_offer(urgency="urgent", people=3, distance_m=420.0)
    assert texts.offer(offer, drill=True).short_text == (
        "SIMULASI JANGKAU K7P2M: lansia terlantar MENDESAK (3 org), Berok, Kec. Koba, 420 m "
        "dari Anda. Bisa datang? Balas K7P2M YA atau K7P2M TIDAK sebelum 12.10 WIB."
    )


def test_the_letter_has_a_subject_and_all_the_facts() -> None:
    offer = made_offer(urgency="urgent", people=3, place=place(approximate=True))
    written = texts.offer(offer)
    assert written.subject == "MENDESAK: lansia terlantar di Kec. Koba (K7P2M)"
    for fact in ("Siti", "3 orang", "Kec. Koba (perkiraan)", "3,2 km", "12.10 WIB", "K7P2M YA"):
        assert fact in written.long_text
    assert "SIMULASI" not in written.long_text


def test_a_drill_says_so_at_the_top_of_the_letter() -> None:
    written = texts.offer(made_offer(), drill=True)
    assert written.subject.startswith("SIMULASI")
    assert "INI SIMULASI" in written.long_text.splitlines()[0]


@given(
    name=st.text(min_size=1, max_size=100),
    village=st.text(max_size=100),
    subdistrict=st.text(max_size=100),
)
def test_no_name_can_add_a_header_to_the_letter(name: str, village: str, subdistrict: str) -> None:
    """A subject with a line break is refused by the mail library: the offer would never go out."""
    offer = made_offer(
        volunteer=OfferedVolunteer(id=made_offer().offer_id, name=name, email="a@example.org"),
        place=place(village_name=village, subdistrict_name=subdistrict),
    )
    assert len(texts.offer(offer).subject.splitlines()) <= 1


@pytest.mark.parametrize(
    ("metres", "said"),
    [
        (0.0, "10 m"),
        (347.0, "350 m"),
        (949.0, "950 m"),
        (951.0, "1,0 km"),
        (3_249.0, "3,2 km"),
        (19_900.0, "19,9 km"),
        (40_600.0, "41 km"),
    ],
)
def test_distances_are_written_as_one_would_say_them(metres: float, said: str) -> None:
    assert texts.distance(metres) == said


def test_the_clock_is_the_volunteers_own() -> None:
    moment = datetime(2026, 1, 1, 23, 5, tzinfo=UTC)
    assert texts.clock(moment, timezone(timedelta(hours=9))) == "08.05"


@pytest.mark.parametrize(("minutes", "zone"), [(420, "WIB"), (480, "WITA"), (540, "WIT")])
def test_the_deadline_names_the_time_zone(minutes: int, zone: str) -> None:
    short = texts.offer(made_offer(utc_offset_minutes=minutes)).short_text
    local = (NOON + timedelta(minutes=10 + minutes)).strftime("%H.%M")
    assert short.endswith(f"sebelum {local} {zone}.")
