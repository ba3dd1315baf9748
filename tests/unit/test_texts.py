"""What a message says, and that it costs one SMS segment."""

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification import texts
from services.notification.texts import (
    GSM_BASIC,
    GSM_EXTENDED,
    LANGUAGES,
    SEGMENT_SEPTETS,
    Texts,
    septets,
)
from shared.events import (
    Answer,
    Category,
    ClosedOffer,
    EscalatedCase,
    JudgedAnswer,
    MadeOffer,
    Role,
    Urgency,
)
from tests.factories import (
    NOON,
    answer_judged,
    asked_volunteer,
    case_escalated,
    coordinator,
    made_offer,
    offer_closed,
    offered_volunteer,
    place,
)

LONG = "Kampung Transmigrasi Sungai Selan Atas Bagian Timur Laut Dekat Jembatan Lama Nomor Dua"
NAMES = ("Berok", "Sungaï Selàn", "Ñuñoa ẞ", "村落", "[Desa] {Baru} €", "", LONG)


DRILL = {"id": "SIMULASI", "en": "DRILL"}
URGENT = {"id": "MENDESAK", "en": "URGENT"}
UNTIL = {"id": "12.10 WITA", "en": "12:10 WITA"}
# One that this version does not know stands at the end of each.
ANSWERS = (*get_args(Answer), "sing")
Writer = Callable[..., Texts]


def words_in(contract: type[Any], field: str) -> list[str]:
    """The words that the contract lists for a field, and one that it will have one day."""
    listed: list[str] = contract.model_json_schema()["properties"][field]["enum"]
    return [*listed, "of_the_future"]


def about_a_place(
    language: str, name: str, category: str
) -> Iterator[tuple[bool, bool, MadeOffer]]:
    """All that makes an offer longer, with whether it is urgent and a drill."""
    for urgency, drill, people, distance_m, approximate in itertools.product(
        get_args(Urgency), (False, True), (1, 1000), (0.0, 40_000.0), (False, True)
    ):
        yield (
            urgency == "urgent",
            drill,
            made_offer(
                category=category,
                urgency=urgency,
                people=people,
                distance_m=distance_m,
                # The longest name of a zone.
                utc_offset_minutes=480,
                respond_by=NOON - timedelta(minutes=50),
                volunteer=offered_volunteer(language=language),
                place=place(
                    village_name=name or None,
                    subdistrict_name=name or "Koba",
                    approximate=approximate,
                ),
            ),
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("category", get_args(Category))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_offer_fits_into_one_sms_segment(language: str, category: str, name: str) -> None:
    for urgent, drill, offer in about_a_place(language, name, category):
        short = texts.offer(offer, drill=drill).short_text
        assert septets(short) <= SEGMENT_SEPTETS
        # Whatever had to be cut, these are what the volunteer cannot do without.
        assert short.count("K7P2M") == 3
        assert "YA" in short
        assert UNTIL[language] in short
        assert (DRILL[language] in short) is drill
        assert (URGENT[language] in short) is urgent


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("category", get_args(Category))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_assignment_fits_into_one_sms_segment(
    language: str, category: str, name: str
) -> None:
    for urgent, drill, offer in about_a_place(language, name, category):
        short = texts.assigned(offer, drill=drill).short_text
        assert septets(short) <= SEGMENT_SEPTETS
        assert "K7P2M TIBA" in short
        assert (DRILL[language] in short) is drill
        assert (URGENT[language] in short) is urgent


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reason", words_in(EscalatedCase, "reason"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_escalation_fits_into_one_sms_segment(language: str, reason: str, name: str) -> None:
    for category, urgency, drill, people in itertools.product(
        get_args(Category), get_args(Urgency), (False, True), (1, 1000)
    ):
        case = case_escalated(
            reason,
            category=category,
            urgency=urgency,
            people=people,
            asked=[asked_volunteer()] * 120,
            place=place(village_name=name or None, subdistrict_name=name or "Koba"),
        ).data
        short = texts.escalation(case, coordinator(language=language), drill=drill).short_text
        assert septets(short) <= SEGMENT_SEPTETS
        assert "ABCD2345" in short
        assert "120" in short
        assert texts.words_of(language)["reasons"].get(reason, "") in short
        assert (DRILL[language] in short) is drill
        assert (URGENT[language] in short) is (urgency == "urgent")


@pytest.mark.parametrize("reason", words_in(ClosedOffer, "reason"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_closing_fits_into_one_sms_segment(language: str, reason: str) -> None:
    ended = offer_closed(reason, volunteer=offered_volunteer(language=language)).data
    written = texts.closed(ended, drill=True)
    assert septets(written.short_text) <= SEGMENT_SEPTETS
    assert written.short_text.startswith(f"{DRILL[language]} JANGKAU K7P2M: ")
    assert written.subject.startswith(DRILL[language])
    assert "Siti" in written.long_text


@pytest.mark.parametrize("verdict", words_in(JudgedAnswer, "verdict"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reply_fits_into_one_sms_segment(language: str, verdict: str) -> None:
    for answer, code, drill in itertools.product(ANSWERS, ("K7P2M", None), (False, True)):
        volunteer = offered_volunteer(language=language)
        judged = answer_judged(answer, verdict, volunteer=volunteer, answer_code=code).data
        written = texts.reply(judged, drill=drill)
        assert septets(written.short_text) <= SEGMENT_SEPTETS
        assert (DRILL[language] in written.short_text) is drill
        assert "{" not in written.short_text
        assert ("K7P2M" in written.short_text) is (code is not None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_word_of_the_future_gets_a_sentence_of_its_own(language: str) -> None:
    words = texts.words_of(language)
    for table in ("categories", "roles", "offer_states", "reasons", "closed", "reply"):
        assert words[table]["other"]
    volunteer = offered_volunteer(language=language)
    judged = answer_judged("sing", "of_the_future", volunteer=volunteer).data
    assert words["reply"]["other"]["other"] in texts.reply(judged).short_text


def test_every_known_word_has_its_own_sentence_in_every_language() -> None:
    for language in LANGUAGES:
        words = texts.words_of(language)
        assert set(get_args(Category)) <= words["categories"].keys()
        assert set(get_args(Role)) <= words["roles"].keys()
        assert set(get_args(Answer)) <= words["reply"]["recorded"].keys()
        for table, contract, field in (
            ("reasons", EscalatedCase, "reason"),
            ("reply", JudgedAnswer, "verdict"),
        ):
            assert set(words_in(contract, field)[:-1]) <= words[table].keys()
        told = set(words_in(ClosedOffer, "reason")[:-1]) - {"expired"}  # nobody is told of that
        assert told <= words["closed"].keys()


def test_the_languages_have_the_same_words() -> None:
    def keys(table: dict[str, Any]) -> Iterator[str]:
        for key, value in table.items():
            yield key
            if isinstance(value, dict):
                yield from (f"{key}.{inner}" for inner in keys(value))

    first, *others = (set(keys(dict(texts.words_of(language)))) for language in LANGUAGES)
    assert all(other == first for other in others)


def test_an_unknown_language_is_answered_in_indonesian() -> None:
    offer = made_offer(volunteer=offered_volunteer(language="jv"))
    assert "Bisa datang?" in texts.offer(offer).short_text


@given(village=st.text(max_size=100), subdistrict=st.text(max_size=100))
@pytest.mark.parametrize("write", [texts.offer, texts.assigned])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_place_name_can_break_the_segment(
    language: str, write: Writer, village: str, subdistrict: str
) -> None:
    offer = made_offer(
        category="homeless",
        urgency="urgent",
        people=1000,
        volunteer=offered_volunteer(language=language),
        place=place(village_name=village, subdistrict_name=subdistrict, approximate=True),
    )
    assert septets(write(offer, drill=True).short_text) <= SEGMENT_SEPTETS


@given(
    village=st.text(max_size=100),
    subdistrict=st.text(max_size=100),
    name=st.text(min_size=1, max_size=100),
    words=st.text(max_size=300),
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_and_no_words_can_break_an_escalation(
    language: str, village: str, subdistrict: str, name: str, words: str
) -> None:
    case = case_escalated(
        "nobody_left_to_ask",
        urgency="urgent",
        people=1000,
        words=words,
        asked=[asked_volunteer(name=name, words=words)] * 1000,
        place=place(village_name=village, subdistrict_name=subdistrict),
    ).data
    written = texts.escalation(case, coordinator(name=name, language=language), drill=True)
    assert septets(written.short_text) <= SEGMENT_SEPTETS
    assert len(written.subject.splitlines()) <= 1


@given(name=st.text(min_size=1, max_size=200))
def test_no_name_can_break_a_reply(name: str) -> None:
    volunteer = offered_volunteer(name=name)
    replied = texts.reply(answer_judged(volunteer=volunteer).data, drill=True)
    ended = texts.closed(offer_closed(volunteer=volunteer).data, drill=True)
    for written in (replied, ended):
        assert septets(written.short_text) <= SEGMENT_SEPTETS
        assert len(written.subject.splitlines()) == 1


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


def test_an_assignment_is_no_question() -> None:
    short = texts.assigned(made_offer()).short_text
    assert short == (
        "JANGKAU K7P2M: Anda ditugaskan koordinator: lansia terlantar, Berok, Kec. Koba, 3,2 km. "
        "Bila tiba, balas K7P2M TIBA. Tidak bisa? K7P2M TIDAK."
    )


def test_whoever_accepts_reads_what_comes_next() -> None:
    written = texts.reply(answer_judged().data)
    assert written.short_text == (
        "JANGKAU K7P2M: terima kasih, Anda menangani kasus ini. Kabari bila tiba: "
        "balas K7P2M TIBA. Ada kendala? K7P2M KENDALA."
    )
    assert written.subject == "Jawaban Anda (K7P2M)"
    assert "Yth. Siti,\n\nTerima kasih, Anda menangani" in written.long_text


def test_whoever_nobody_knows_is_answered_politely_too() -> None:
    judged = answer_judged(
        verdict="unknown_offer", volunteer=None, answer_code=None, phone="+6281200000009"
    )
    written = texts.reply(judged.data)
    assert written.short_text == (
        "JANGKAU: kode ini tidak kami kenal. Mohon periksa lagi kode di pesan kami."
    )
    assert "Yth. Bapak/Ibu," in written.long_text


def test_the_short_text_of_an_escalation_says_code_why_where_and_how_many() -> None:
    short = texts.escalation(case_escalated().data, coordinator()).short_text
    assert short == (
        "JANGKAU ABCD2345: tidak ada lagi relawan yang bisa ditanya: lansia terlantar, "
        "Berok, Kec. Koba; 1 relawan ditanya. Mohon tindak lanjut."
    )


def test_the_letter_of_an_escalation_lists_who_was_asked_and_what_came_back() -> None:
    case = case_escalated(
        "obstacle",
        words="jalan\nbanjir",
        asked=[
            asked_volunteer(words="maaf, di luar kota"),
            asked_volunteer(name="Dewi", phone=None, role="tksk", state="expired"),
        ],
    ).data
    written = texts.escalation(case, coordinator())
    assert written.subject == "Perlu koordinator: lansia terlantar di Berok, Kec. Koba (ABCD2345)"
    for fact in (
        "Yth. Ani",
        "relawan melaporkan kendala",
        '"jalan banjir"',
        "1. Budi (PSM), 3,2 km, +6281234567891",
        'tidak bisa: "maaf, di luar kota"',
        "2. Dewi (TKSK), 3,2 km, tanpa nomor telepon",
        "tidak menjawab sampai batas waktu",
        "01/03 12.00 WIB",
    ):
        assert fact in written.long_text
    # Where exactly the person is concerns whoever goes there.
    assert not re.search(r"2[.,]49|106[.,]4", written.long_text)


def test_an_escalation_before_anybody_was_asked_says_so() -> None:
    written = texts.escalation(case_escalated(asked=[]).data, coordinator(language="en"))
    assert "0 volunteers asked" in written.short_text
    assert "No volunteer has been asked yet." in written.long_text


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
        volunteer=offered_volunteer(name=name),
        place=place(village_name=village, subdistrict_name=subdistrict),
    )
    for written in (texts.offer(offer), texts.assigned(offer)):
        assert len(written.subject.splitlines()) <= 1


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
    assert texts.distance(metres, ".") == said.replace(",", ".")


def test_the_clock_is_the_volunteers_own() -> None:
    moment = datetime(2026, 1, 1, 23, 5, tzinfo=UTC)
    assert texts.clock(moment, 9 * 60) == "08.05 WIT"
    assert texts.clock(moment, 0, "%H:%M") == "23:05"


@pytest.mark.parametrize(("minutes", "zone"), [(420, "WIB"), (480, "WITA"), (540, "WIT")])
def test_the_deadline_names_the_time_zone(minutes: int, zone: str) -> None:
    short = texts.offer(made_offer(utc_offset_minutes=minutes)).short_text
    local = (NOON + timedelta(minutes=10 + minutes)).strftime("%H.%M")
    assert short.endswith(f"sebelum {local} {zone}.")
