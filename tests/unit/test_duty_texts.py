"""What a volunteer is told about days off and their duty page."""

from datetime import date

import pytest

from services.notification import letters, texts
from services.notification.gsm import segments
from shared.events import AnsweredDuty, DutyAnswered
from tests.factories import DISTRICT, NOON, offered_volunteer


def told(**values: object) -> DutyAnswered:
    data = {"about": "off_duty", "volunteer": offered_volunteer(), **values}
    event: DutyAnswered = DutyAnswered.of(
        AnsweredDuty.model_validate(data),
        case_id=offered_volunteer().id,
        district=DISTRICT,
        time=NOON,
    )
    return event


def short(**values: object) -> str:
    letter = letters.duty(told(**values))
    assert letter is not None
    assert segments(letter.texts.short_text) == (2 if values.get("link") else 1)
    return letter.texts.short_text


def test_days_off_are_confirmed_with_the_day_in_words() -> None:
    monday = date(2026, 11, 30)
    assert "sampai Senin 30 Nov 2026" in short(last_day=monday)
    english = offered_volunteer(language="en")
    assert "until Monday 30 Nov 2026" in short(last_day=monday, volunteer=english)


def test_the_way_back_is_a_word_that_we_understand() -> None:
    from services.notification.incoming.reading import classify

    for language in texts.LANGUAGES:
        said = short(last_day=date(2026, 11, 30), volunteer=offered_volunteer(language=language))
        assert "JADWAL" in said
    assert classify("JADWAL").meaning == "duty_page"
    assert classify("LIBUR 3 HARI").meaning == "off_duty"
    assert classify("LIBUR SAMPAI SENIN").meaning == "off_duty"


@pytest.mark.parametrize("count", [1, 3, 5])
def test_cases_that_stay_theirs_are_named(count: int) -> None:
    codes = ["W259A", "K7P2M", "R4T8N", "C9X3H", "AAAA2"][:count]
    said = short(last_day=date(2026, 11, 30), holds=codes)
    assert "W259A TIDAK" in said
    assert all(code in said for code in codes[: texts.NAMED_CASES])
    assert ("dll" in said) is (count > texts.NAMED_CASES)


def test_the_link_is_in_the_message_and_without_an_address_there_is_a_sentence() -> None:
    link = f"https://jangkau.dinsos.kabupaten99.go.id/v/{'x' * 102}"
    assert link in short(about="duty_page", link=link)
    assert "tidak tersedia" in short(about="duty_page")


def test_who_has_no_address_is_not_written_to() -> None:
    assert letters.duty(told(about="unknown", volunteer=None)) is None
    letter = letters.duty(told(about="unknown", volunteer=None, phone="+6281299999999"))
    assert letter is not None
    assert (letter.recipient, letter.urgent) == ("unknown:+6281299999999", False)


def test_a_word_of_a_later_release_is_said_in_general() -> None:
    assert "JADWAL" in short(about="of_the_future")
