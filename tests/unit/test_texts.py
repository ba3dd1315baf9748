"""What a message says, and that it costs one SMS segment."""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notification import text_check, texts
from services.notification.gsm import GSM_BASIC, GSM_EXTENDED, gsm, is_gsm, segments, septets
from services.notification.text_check import PURPOSES, Sample
from services.notification.texts import (
    LANGUAGES,
    SEGMENT_SEPTETS,
    SHORTEST_PLACE,
    BrokenTexts,
    Texts,
)
from shared.events import (
    Answer,
    Category,
    ClosedOffer,
    EscalatedCase,
    JudgedAnswer,
    Role,
)
from shared.words import one_line
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
    reporter,
)

DRILL = {"id": "SIMULASI", "en": "DRILL"}
URGENT = {"id": "MENDESAK", "en": "URGENT"}
# One that this version does not know stands at the end of each.
ANSWERS = (*get_args(Answer), "sing")
Writer = Callable[..., Texts]

# As long as an address may be: 40 characters before the token.
LINK = "https://jangkau.dinsos.kabupaten99.go.id/r/K7P2MvQ3_x-8LmTz"
assert LINK.index("/r/") == 40
ORDINARY_NAMES = (
    "Siti Aminah",
    "H. Muhammad Ma’ruf",  # noqa: RUF001
    "Jum`at bin Yahya",
    "Ni Luh Gedé Ayu",
    "José Ñuñez Çelik",
    "Nguyễn Thị Hằng",
    "王小明",
    "Budi 🙂👍🏽",
    "[Pak] {RT} ~ 05 €",
    "Raden Ajeng Siti Nurhaliza Rahmawati Kusumaningtyas Wijayakusuma",
)
NAMES = st.sampled_from(ORDINARY_NAMES) | st.text(min_size=1, max_size=120)
LINKS = st.none() | st.builds(
    lambda base, token: f"https://{base}/r/K7P2M{token}",
    st.text(alphabet="abcdefghij.-", min_size=4, max_size=32),
    st.text(alphabet="ABCxyz059-_", min_size=11, max_size=11),
)


@cache
def real_places() -> list[tuple[str, str]]:
    """Villages of the whole country with their subdistricts, the longest names first."""
    from lokal import wilayah

    found = [
        (village.name, subdistrict.name)
        for province in wilayah.list_wilayah()
        for district in wilayah.list_wilayah(province.code)
        for subdistrict in wilayah.list_wilayah(district.code)
        for village in wilayah.list_wilayah(subdistrict.code)
    ]
    return sorted(found, key=lambda names: -len("".join(names)))


# The longest, where something must give, and any of the 83,762.
PLACES = st.integers(0, 200).map(lambda n: real_places()[n]) | st.integers(0, 83_000).map(
    lambda n: real_places()[n % len(real_places())]
)


def words_in(contract: type[Any], field: str) -> list[str]:
    """The words that the contract lists for a field, and one that it will have one day."""
    listed: list[str] = contract.model_json_schema()["properties"][field]["enum"]
    return [*listed, "of_the_future"]


AROUND = {"id": "sekitar ", "en": "about "}


@st.composite
def offers(draw: Callable[..., Any]) -> dict[str, Any]:
    """All that makes an offer longer."""
    return {
        "category": draw(st.sampled_from(get_args(Category))),
        "urgency": draw(st.sampled_from(["normal", "urgent"])),
        "people": draw(st.sampled_from([1, 2, 99, 100, 1000]) | st.integers(1, 1000)),
        "distance_m": draw(st.sampled_from([0.0, 19_999.0, 1e6]) | st.floats(0, 1e6)),
        "utc_offset_minutes": draw(st.sampled_from([420, 480, 540])),
        "respond_by": NOON + timedelta(minutes=draw(st.integers(0, 1440))),
    }


WORST = {
    "category": "disaster_victim",
    "urgency": "urgent",
    "people": 1000,
    "distance_m": 1e6,
    "utc_offset_minutes": 480,
    "respond_by": NOON,
}


@example(values=WORST, names=("Kampuang Tanjuang Koto Mambang Sungai Durian", "Patamuan"),
         approximate=True, drill=True, link=LINK, name="Siti")  # fmt: skip
@example(values=WORST, names=("Kampuang Tanjuang Koto Mambang Sungai Durian", "Patamuan"),
         approximate=True, drill=False, link=LINK, name="Siti")  # fmt: skip
@given(
    values=offers(),
    names=PLACES,
    approximate=st.booleans(),
    drill=st.booleans(),
    link=LINKS | st.just(LINK),
    name=NAMES,
)
@pytest.mark.parametrize("write", [texts.offer, texts.assigned])
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_offer_says_all_it_has_to_in_one_segment(
    language: str,
    write: Writer,
    values: dict[str, Any],
    names: tuple[str, str],
    approximate: bool,
    drill: bool,
    link: str | None,
    name: str,
) -> None:
    village, subdistrict = names
    made = made_offer(
        volunteer=offered_volunteer(language=language, name=name),
        place=place(village_name=village, subdistrict_name=subdistrict, approximate=approximate),
        **values,
    )
    written = write(made, link=link, drill=drill)
    short = written.short_text
    assert is_gsm(short)
    assert segments(short) == 1
    assert "K7P2M" in short.removesuffix(link or "")
    assert link is None or short.endswith(f" {link}")
    assert link is None or link in written.long_text
    named = village if approximate else f"{village}, {subdistrict}"
    at_least = gsm(named)[:SHORTEST_PLACE].rstrip(" ,.")
    assert at_least in short.replace("Kec. ", "")
    assert "Kec.," not in short
    decimal = texts.words_of(language)["decimal"]
    far = texts.distance(made.distance_m, decimal, approximate=approximate)
    # Where nothing else fits, the place is worth more than the guess of a distance.
    tightest = any(f"{word} {gsm(village)[:12]}" in short for word in ("sekitar", "around"))
    assert (approximate and tightest) or far.replace(" ", "") in short.replace(" ", "")
    assert (AROUND[language] in short or tightest) is approximate
    for text in (short, written.long_text) if approximate else ():
        shown = re.findall(r"([0-9.,]+) ?(k?m)\b", text.replace(link or " ", ""))
        assert all(unit == "km" and number.isdigit() for number, unit in shown), shown
    assert (DRILL[language] in short) is drill
    assert (URGENT[language] in short) is (made.urgency == "urgent")
    if made.people > 1:
        assert re.search(rf"\b{made.people} (org|ppl)\b|>99 (org|ppl)", short)
    if write is texts.offer:
        form = texts.words_of(language)["clock"]
        assert texts.clock(made.respond_by, made.utc_offset_minutes, form, zone=False) in short
        assert re.search("YA.*TIDAK", short)
    else:
        assert "K7P2M TIBA" in short


@given(village=st.text(max_size=100), subdistrict=st.text(max_size=100), values=offers())
@pytest.mark.parametrize("write", [texts.offer, texts.assigned])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_place_name_can_break_the_segment(
    language: str, write: Writer, village: str, subdistrict: str, values: dict[str, Any]
) -> None:
    offer = made_offer(
        volunteer=offered_volunteer(language=language),
        place=place(village_name=village, subdistrict_name=subdistrict, approximate=True),
        **values,
    )
    for link in (None, LINK):
        short = write(offer, link=link, drill=True).short_text
        assert septets(short) <= SEGMENT_SEPTETS
        assert link is None or short.endswith(link)


@pytest.mark.parametrize("write", [texts.offer, texts.assigned])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("link", ["https://" + "a" * 120, "https://村.id/r/K7P2M", "x" * 5000])
def test_a_link_that_no_segment_can_hold_is_left_to_the_mail(
    link: str, language: str, write: Writer
) -> None:
    written = write(made_offer(volunteer=offered_volunteer(language=language)), link=link)
    assert segments(written.short_text) == 1
    assert link[:12] not in written.short_text
    assert link in written.long_text


def test_extras_go_before_the_place_is_cut() -> None:
    """Rather no "Bisa datang?" than half a village; then the subdistrict goes, from its end."""
    near = place(village_name="Sungai Selan Atas", subdistrict_name="Namang")
    short = texts.offer(made_offer(place=near), link=LINK).short_text
    assert short.startswith("JANGKAU: lansia terlantar, Sungai Selan Atas, Namang, 3,2 km. ")
    assert "Bisa datang?" not in short
    village, subdistrict = "Kampuang Tanjuang Koto Mambang Sungai Durian", "Koto Patamuan"
    far = place(village_name=village, subdistrict_name=subdistrict)
    short = texts.offer(made_offer(place=far), link=LINK).short_text
    assert short.startswith("JANGKAU: lansia terlantar, Kampuang Tanjuang Koto Mamb., 3,2 km")
    assert segments(short) == 1


@pytest.mark.parametrize(
    "name", ["Berok", "Sungaï Selàn", "村落", "", "Buay Pematang Ribu Ranau Tengah"]
)
@pytest.mark.parametrize("reason", words_in(EscalatedCase, "reason"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_escalation_fits_into_one_sms_segment(language: str, reason: str, name: str) -> None:
    for category, urgency, drill, people in itertools.product(
        get_args(Category), ("normal", "urgent"), (False, True), (1, 1000)
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
        assert gsm(name)[:SHORTEST_PLACE].rstrip() in short
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
    for table, entries in words.items():
        if isinstance(entries, dict) and table not in ("subjects", "weekdays", "months"):
            assert entries["other"]
    volunteer = offered_volunteer(language=language)
    judged = answer_judged("sing", "of_the_future", volunteer=volunteer).data
    assert words["reply"]["other"]["other"] in texts.reply(judged).short_text


def test_every_known_word_has_its_own_sentence_in_every_language() -> None:
    for language in LANGUAGES:
        words = texts.words_of(language)
        assert set(get_args(Category)) <= words["categories"].keys()
        assert words["brief_categories"].keys() == words["categories"].keys()
        assert PURPOSES.keys() - {"offer", "assigned", "escalation"} <= words["subjects"].keys()
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
        asked=[asked_volunteer(name=name, words=words)] * 100,
        place=place(village_name=village, subdistrict_name=subdistrict),
    ).data
    written = texts.escalation(case, coordinator(name=name, language=language), drill=True)
    assert septets(written.short_text) <= SEGMENT_SEPTETS
    assert len(written.subject.splitlines()) <= 1


@given(name=NAMES)
def test_no_name_can_break_a_reply(name: str) -> None:
    volunteer = offered_volunteer(name=name)
    replied = texts.reply(answer_judged(volunteer=volunteer).data, drill=True)
    ended = texts.closed(offer_closed(volunteer=volunteer).data, drill=True)
    pinged = texts.ping(name, "K7P2M", link=LINK, drill=True)
    answered = texts.ping_answered(name, drill=True)
    for written in (replied, ended, pinged, answered):
        assert is_gsm(written.short_text)
        assert segments(written.short_text) == 1
        assert len(written.subject.splitlines()) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_has_just_got_the_case_learns_where_the_details_are(language: str) -> None:
    volunteer = offered_volunteer(language=language)
    judged = answer_judged(volunteer=volunteer).data
    contact = reporter(name="Budi\nBcc: all")
    for drill, known in itertools.product((False, True), (None, contact)):
        written = texts.reply(judged, link=LINK, reporter=known, drill=drill)
        assert segments(written.short_text) == 1
        assert written.short_text.endswith(f" {LINK}")
        assert "K7P2M TIBA" in written.short_text
        assert LINK in written.long_text
        assert "+6281299998888" not in written.short_text
        assert ("+6281299998888" in written.long_text) is (known is not None)
        assert ("Budi Bcc: all" in written.long_text) is (known is not None)


@pytest.mark.parametrize("link", ["https://" + "a" * n for n in (60, 120, 200)])
def test_a_link_too_long_for_one_segment_takes_a_second_one(link: str) -> None:
    short = texts.reply(answer_judged().data, link=link, reporter=reporter()).short_text
    assert segments(short) <= 2
    assert short.endswith(link)


def test_without_a_link_the_contact_is_in_the_mail_alone() -> None:
    written = texts.reply(answer_judged().data, reporter=reporter())
    assert "budi@example.org" in written.long_text
    assert "budi" not in written.short_text.lower()


def test_the_link_goes_to_who_has_the_case_or_is_asked_back_and_the_contact_to_the_former() -> None:
    for answer, verdict in itertools.product(ANSWERS, words_in(JudgedAnswer, "verdict")):
        if (answer, verdict) == ("accept", "recorded"):
            continue
        written = texts.reply(answer_judged(answer, verdict).data, link=LINK, reporter=reporter())
        for text in (written.short_text, written.long_text):
            assert (LINK in text) is (verdict in ("unconfirmed", "not_accepted_yet")), text
            assert "+62812" not in text
            assert "Budi" not in text


# --- every kind of message ---------------------------------------------------------------------


def all_texts(**values: Any) -> Iterator[tuple[str, Texts]]:
    for language, (purpose, entry) in itertools.product(LANGUAGES, PURPOSES.items()):
        for choice in entry.choices:
            sample = Sample(language=language, **values)
            yield f"{purpose} {choice} {language}", entry.write(sample, choice)


def test_every_function_that_writes_a_text_is_a_purpose() -> None:
    """So that check(), the preview and the tests below leave none out."""
    writers = {
        name
        for name, function in inspect.getmembers(texts, inspect.isfunction)
        if function.__annotations__.get("return") is Texts and not name.startswith("_")
    }
    assert writers - {"volunteer_unreachable"} == PURPOSES.keys() - {"unreachable"}


def test_a_drill_is_marked_in_every_text_and_nothing_else_is() -> None:
    for drill in (True, False):
        for about, written in all_texts(drill=drill):
            mark = DRILL[about[-2:]]
            assert re.match(rf"{mark}\b" if drill else "JANGKAU", written.short_text), about
            assert written.subject.startswith(mark) is drill, about
            assert (mark in written.long_text.splitlines()[0]) is drill, about
            assert written.long_text.count(mark) == (1 if drill else 0), about


def test_every_text_fits_its_segments_with_the_longest_that_may_stand_in_it() -> None:
    longest = vars(text_check.LONGEST)
    for given_, choice in itertools.product((vars(Sample()), longest), (None, LINK)):
        for drill in (False, True):
            values = {**given_, "drill": drill, "link": choice}
            values.pop("language")
            for about, written in all_texts(**values):
                assert is_gsm(written.short_text), about
                purpose = PURPOSES[about.partition(" ")[0]]
                assert segments(written.short_text) <= purpose.segments, about
                assert written.subject == written.subject.strip() != "", about
                assert len(written.subject.splitlines()) == 1, about
                for text in (written.short_text, written.subject, written.long_text):
                    assert "{" not in text, about
                    assert "None" not in text, about
                assert not re.search(r"  |\n", written.short_text), about
                assert "\n\n\n" not in written.long_text, about


def test_a_reporter_hears_nothing_about_the_person() -> None:
    """Whoever reads the telephone learns no kind of need, no place, no name."""
    for language in LANGUAGES:
        words = texts.words_of(language)
        said = {*words["categories"].values(), *words["brief_categories"].values()}
        told = [texts.acknowledged("ABCD2345", language=language)]
        told += [texts.on_the_way("ABCD2345", language=language)]
        told += [
            texts.case_closed("ABCD2345", outcome, language=language)
            for outcome in ("resolved", "referred", "not_found", "cancelled", "of_the_future", None)
        ]
        for written in told:
            assert "ABCD2345" in written.short_text
            assert "ABCD2345" in written.subject
            whole = f"{written.short_text} {written.subject} {written.long_text}".lower()
            assert not [word for word in said if word.lower() in whole]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reporter_may_get_a_page_to_look_at(language: str) -> None:
    page = "https://jangkau.dinsos.kabupaten99.go.id/s/ABCD2345"
    for drill in (False, True):
        for written in (
            texts.acknowledged("ABCD2345", language=language, status_url=page, drill=drill),
            texts.on_the_way("ABCD2345", language=language, status_url=page, drill=drill),
            texts.case_closed("ABCD2345", "not_found", language=language, status_url=page,
                              drill=drill),
        ):  # fmt: skip
            assert segments(written.short_text) == 1
            assert written.short_text.endswith(f" {page}")
            assert page in written.long_text
    far = texts.acknowledged("ABCD2345", language=language, status_url="https://" + "a" * 200)
    assert segments(far.short_text) == 1


def test_a_test_says_that_nothing_has_happened() -> None:
    written = texts.ping("Siti", "K7P2M", link=LINK)
    assert written.short_text.endswith(LINK)
    assert "K7P2M YA" in written.short_text
    for text in (written.short_text, written.long_text):
        assert "tidak ada yang menunggu" in text
    assert "nobody is waiting" in texts.ping("Siti", "K7P2M", language="en").short_text


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_question_back_has_its_own_sentence(language: str) -> None:
    whys = (
        "ambiguous", "not_understood", "empty", "no_offer", "which_offer", "two_codes",
        "wrong_number", "of_the_future",
    )  # fmt: skip
    said = [texts.ask(why, "K7P2M", language=language, drill=True).short_text for why in whys]
    assert len(set(said)) == len(said)
    assert all(segments(short) == 1 for short in said)


def test_a_question_names_what_there_is_to_choose_from() -> None:
    short = texts.ask("which_offer", None, codes=("K7P2M", "R4T8N")).short_text
    assert "K7P2M, R4T8N" in short
    assert "K7P2M YA" in short


@pytest.mark.parametrize("why", ["ambiguous", "not_understood", "empty"])
def test_no_code_of_several_is_put_into_anybodys_mouth(why: str) -> None:
    both = texts.ask(why, None, codes=("K7P2M", "R4T8N")).short_text
    assert "K7P2M, R4T8N" in both
    assert texts.ask(why, None, codes=("K7P2M",)).short_text.count("K7P2M") >= 1


@given(count=st.integers(1, 200), drill=st.booleans())
@pytest.mark.parametrize("why", ["which_offer", "two_codes", "not_understood", "of_the_future"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_however_many_codes_a_question_is_one_segment(
    language: str, why: str, count: int, drill: bool
) -> None:
    codes = [f"K{number:04d}" for number in range(count)]
    short = texts.ask(why, None, language=language, codes=codes, drill=drill).short_text
    assert segments(short) == 1
    assert codes[0] in short


def test_a_question_without_any_code_still_is_one() -> None:
    short = texts.ask("not_understood", None).short_text
    assert short.startswith("JANGKAU: kami belum paham")
    assert "KODE YA" in short


def test_stop_says_how_to_come_back_and_start_how_to_stop() -> None:
    for language in LANGUAGES:
        assert "MULAI" in texts.stopped(language=language).short_text
        assert "STOP" in texts.started(language=language).short_text


@given(name=NAMES, drill=st.booleans(), why=st.sampled_from(["stopped", "dead_number", "new"]))
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_coordinator_hears_whom_we_have_lost(
    language: str, name: str, drill: bool, why: str
) -> None:
    written = texts.volunteer_unreachable(
        name, "+6281234567890", coordinator(language=language), why=why, drill=drill
    )
    assert segments(written.short_text) == 1
    assert is_gsm(written.short_text)
    assert "(+6281234567890)" in written.short_text
    assert gsm(one_line(name))[:20].strip(" ,.") in written.short_text
    assert len(written.subject.splitlines()) == 1


def test_a_volunteer_of_whom_we_know_nothing_is_a_volunteer() -> None:
    short = texts.volunteer_unreachable("", None, coordinator()).short_text
    assert short.startswith("JANGKAU: relawan tanpa nama tidak ingin")


@given(name=NAMES, used=st.integers(0, 10**7), drill=st.booleans())
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_coordinator_hears_that_the_money_is_nearly_spent(
    language: str, name: str, used: int, drill: bool
) -> None:
    written = texts.budget(name, used, 10**7, coordinator(language=language), drill=drill)
    assert segments(written.short_text) == 1
    assert is_gsm(written.short_text)
    assert f"{used} " in written.short_text
    assert "10000000" in written.short_text


# --- an installation's own texts ---------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    texts.use(tmp_path)
    yield tmp_path
    texts.use(None)


def test_our_own_texts_can_all_be_written() -> None:
    texts.check()


def test_an_installation_says_it_in_its_own_words(own: Path) -> None:
    """A byte order mark and Windows' line ends are what an editor there may leave."""
    (own / "offer.email.id.txt").write_bytes(
        b"\xef\xbb\xbf{{ words.drill if drill }} Tolong: {{ what }}\r\n\r\n"
        b"{{ words.drill if drill }} {{ code }} {{ until }} {{ link or '' }}\r\n"
    )
    (own / "words.id.toml").write_text(
        'clock = "%H:%M"\n[closed]\ncase_closed = ["sudah selesai, Kak!"]\n'
    )
    texts.use(own)
    texts.check()
    written = texts.offer(made_offer(), link=LINK)
    assert written.subject == "Tolong: lansia terlantar"
    assert LINK in written.long_text
    # What it does not say, we do.
    assert written.short_text.startswith("JANGKAU: lansia")
    assert "sudah selesai, Kak!" in texts.closed(offer_closed("case_closed").data).short_text
    assert "relawan lain" in texts.closed(offer_closed("taken_by_another").data).short_text
    texts.use(None)
    assert "Kak!" not in texts.closed(offer_closed("case_closed").data).short_text


SMS = "{{ words.drill if drill }} {{ code }} {{ place }} {{ until }} {{ link or '' }}"
MAIL = "{{ words.drill if drill }} {{ code }} {{ until }} {{ link or '' }}"


@pytest.mark.parametrize(
    ("name", "content", "sentences"),
    [
        ("offer.sms.id.txt", SMS + "{{ plaec }}", ["offer.sms.id.txt", "plaec", "place"]),
        ("offer.sms.id.txt", SMS + "{% if people > 5 %}{{ plaec }}{% endif %}", ["plaec"]),
        ("offer.sms.id.txt", SMS + "{{ words.drlil }}", ["offer.sms.id.txt", "drlil"]),
        ("offer.sms.id.txt", SMS + "\n{% if %}", ["offer.sms.id.txt", "line 2"]),
        ("offer.sms.id.txt", SMS + "x" * 100, ["offer.sms.id.txt", "no room for it"]),
        ("offer.sms.id.txt", SMS + "x" * 170, ["offer.sms.id.txt", "2 SMS and may take 1"]),
        ("offer.sms.id.txt", SMS + " – ya?", ["offer.sms.id.txt", "–", "alphabet"]),  # noqa: RUF001
        ("offer.sms.id.txt", SMS.replace("{{ words.drill if drill }}", ""), ["SIMULASI"]),
        ("offer.sms.id.txt", SMS.replace("{{ link or '' }}", ""), ["offer.sms.id.txt", "link"]),
        ("offer.sms.id.txt", SMS.replace("{{ until }}", ""), ["offer.sms.id.txt", "time"]),
        ("offer.sms.id.txt", SMS.replace("{{ code }}", ""), ["offer.sms.id.txt", "code"]),
        ("offer.email.en.txt", f"DRILL {MAIL}", ["offer.email.en.txt", "first line"]),
        ("offer.email.en.txt", f"DRILL\nx\n\n{MAIL}", ["offer.email.en.txt", "one line"]),
        ("note.email.en.txt", f"Hello\n\n{MAIL}", ["note.email.en.txt", "until"]),
        ("ofer.sms.id.txt", SMS, ["ofer.sms.id.txt", "no text of this name", "offer.sms.id.txt"]),
        ("words.id.toml", "[closed\n", ["words.id.toml", "line 1"]),
        ("words.id.toml", '[closed]\nreleasd = "x"\n', ["words.id.toml", "closed.releasd"]),
        ("words.id.toml", 'closed = "x"\n', ["words.id.toml", "closed"]),
        ("words.id.toml", "drill = 5\n", ["words.id.toml", "drill"]),
        ("words.id.toml", "drill = ''\n", ["words.id.toml", "drill"]),
        ("words.id.toml", "drill = ['A', 'B']\n", ["words.id.toml", "drill"]),
        ("words.id.toml", "ping = []\n", ["words.id.toml", "ping"]),
        ("words.id.toml", 'ping = "{kode} YA"\n', ["words.id.toml", "{kode}", "{code}"]),
        ("words.en.toml", f'ping = "{{code}} YA {"x" * 160}"\n', ["words.en.toml", "ping"]),
        ("words.en.toml", '[closed]\nlapsed = "so – bye"\n', ["words.en.toml", "lapsed", "–"]),  # noqa: RUF001
    ],
)
def test_a_broken_own_text_is_refused_at_start_with_its_file_and_its_field(
    own: Path, name: str, content: str, sentences: list[str]
) -> None:
    (own / name).write_text(content, encoding="utf-8")
    texts.use(own)
    with pytest.raises(BrokenTexts) as refused:
        texts.check()
    for sentence in sentences:
        assert sentence in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenTexts, match="JANGKAU_TEXTS"):
        texts.use(tmp_path / "none")


# --- what an SMS carries -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        # An escape and its character stay together: 76 of them to a part of 153.
        ("€" * 152, 2),
        ("€" * 153, 3),
        ("村" * 70, 1),
        ("村" * 71, 2),
        ("村" * 134, 2),
        ("村" * 135, 3),
        ("🙂" * 35, 1),
        ("🙂" * 36, 2),
        # So do the halves of a character of two units: 33 of them to a part of 67.
        ("🙂" * 66, 2),
        ("🙂" * 67, 3),
        ("a" * 159 + "ó", 3),
    ],
)
def test_segments_are_counted_as_networks_do(text: str, count: int) -> None:
    assert segments(text) == count == texts.segments(text)


def test_what_people_write_for_what_the_alphabet_has_is_written_so() -> None:
    assert gsm("Jum`at Ma’ruf “RT” – [05] {a}") == "Jum'at Ma'ruf \"RT\" - (05) (a)"  # noqa: RUF001
    assert gsm("Nguyễn Thị Hằng Đỗ") == "Nguyen Thi Hang Do"
    assert gsm("e\N{COMBINING ACUTE ACCENT}") == "e"


@given(st.text())
def test_every_text_has_a_form_in_the_gsm_alphabet(text: str) -> None:
    septets(gsm(text))


def test_accents_go_and_foreign_letters_become_question_marks() -> None:
    assert gsm("Pangkalpinâng 村 é") == "Pangkalpinang ? é"


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
        "Bisa datang? Balas K7P2M YA atau TIDAK sebelum 12.10 WIB."
    )


def test_the_link_comes_last_where_telephones_make_it_clickable() -> None:
    link = "https://jangkau.bangkatengahkab.go.id/r/K7P2MvQ3_x-8LmTz"
    assert texts.offer(made_offer(), link=link).short_text == (
        "JANGKAU: lansia terlantar, Berok, Koba, 3,2 km. Bisa datang? "
        f"Balas K7P2M YA/TIDAK sblm 12.10 WIB {link}"
    )


def test_the_short_text_says_what_is_special() -> None:
    offer = made_offer(urgency="urgent", people=3, distance_m=420.0)
    assert texts.offer(offer, drill=True).short_text == (
        "SIMULASI JANGKAU K7P2M: lansia terlantar MENDESAK (3 org), Berok, Kec. Koba, 420 m "
        "dari Anda. Bisa datang? Balas K7P2M YA atau TIDAK sebelum 12.10 WIB."
    )


def test_an_assignment_is_no_question() -> None:
    short = texts.assigned(made_offer()).short_text
    assert short == (
        "JANGKAU K7P2M: Anda ditugaskan koordinator: lansia terlantar, Berok, Kec. Koba, 3,2 km. "
        "Tiba? Balas K7P2M TIBA. Tidak bisa? K7P2M TIDAK."
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
    for fact in (
        "Siti",
        "3 orang",
        "Kec. Koba (perkiraan)",
        "sekitar 3 km",
        "12.10 WIB",
        "K7P2M YA",
    ):
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


@given(
    values=offers(),
    names=PLACES,
    village=st.booleans(),
    asked=st.integers(0, 120),
    drill=st.booleans(),
    reason=st.sampled_from(text_check.PURPOSES["escalation"].choices),
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_coordinator_is_told_of_an_approximate_place_never_looks_exact(
    language: str,
    values: dict[str, Any],
    names: tuple[str, str],
    village: bool,
    asked: int,
    drill: bool,
    reason: str,
) -> None:
    sample = text_check.Sample(
        language=language, urgent=values["urgency"] == "urgent", people=values["people"],
        drill=drill, category=values["category"], village=names[0] if village else None,
        subdistrict=names[1], distance_m=values["distance_m"], approximate=True, asked=asked,
    )  # fmt: skip
    written = text_check.PURPOSES["escalation"].write(sample, reason)
    around = {"id": "sekitar ", "en": "around "}[language]
    assert f"{around}{gsm(names[0] if village else 'Kec. ' + names[1])[:8]}" in written.short_text
    assert segments(written.short_text) == 1
    assert "Kec. " in written.subject
    for number, unit in re.findall(
        r"\), (?:sekitar |about )?([0-9.,]+) (k?m)\b", written.long_text
    ):
        assert unit == "km"
        assert number.isdigit()
