"""Words that are about no offer: each who writes gets an answer that fits, and officers get the
words of reporters and strangers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.notification import asked, inbound, officers, reported_by
from services.notification.handlers import Office
from services.notification.inbound import Heard
from services.notification.settings import NotificationSettings
from shared.database import Database
from tests.factories import (
    case_reported,
    offer_made,
    offered_volunteer,
    place,
    reporter,
)
from tests.integration.conftest import one, rows, run
from tests.integration.sending import Senders

SITI, BUDI, STRANGER = "+6281234567890", "+6281299998888", "+6281377778888"
PIKET, KOBA, NAMANG = "+6289000000201", "+6289000000202", "+6289000000206"


class Desk:
    """What comes in, with a database and everybody's fake phones."""

    def __init__(self, senders: Senders, office: Office) -> None:
        self.senders, self.office = senders, office
        self.database: Database = senders.database
        self.ids = 0

    async def says(self, sender: str, text: str, **values: Any) -> None:
        """A text comes in by SMS."""
        self.ids += 1
        given = {"channel": "sandbox", "kind": "sms", "provider_id": f"t{self.ids}"} | values
        heard = Heard(sender=sender, text=text, raw=text, **given)
        async with self.database.transaction() as session:
            await inbound.take(session, heard, office=self.office)

    async def to(self, phone: str) -> list[Any]:
        """What is sent to this number, in order."""
        return list(
            await rows(
                self.database,
                "SELECT * FROM messages WHERE phone = :phone ORDER BY created_at, id",
                phone=phone,
            )
        )

    async def kept(self) -> list[tuple[str, str | None, str | None]]:
        found = await rows(self.database, "SELECT * FROM inbound ORDER BY received_at, id")
        return [(row.meaning, row.why, row.district) for row in found]

    async def hour_passes(self) -> None:
        await run(self.database, "UPDATE inbound SET received_at = received_at - interval '2 h'")
        await run(self.database, "UPDATE crowded_hours SET hour = hour - interval '2 h'")

    async def hours_told(self) -> int:
        async with self.database.transaction() as session:
            return await officers.tell_of_crowded_hours(session, office=self.office)


@pytest.fixture
async def desk(notification_database: Database) -> AsyncIterator[Desk]:
    senders = Senders(notification_database, NotificationSettings())
    yield Desk(senders, replace(senders.office, forwarded_each=3, forwarded_in_all=5))
    await senders.close()


async def reports(desk: Desk, *, phone: str = BUDI, **values: Any) -> Any:
    """Somebody reports a case in Namang."""
    where = place(subdistrict="19.04.05", subdistrict_name="Namang")
    values = {"place": where, "reporter": reporter(phone=phone, email=None), **values}
    case = case_reported(**values)
    await desk.senders.report(case)
    return case


async def was_asked(desk: Desk) -> None:
    """Siti was asked once, and that is over."""
    async with desk.database.transaction() as session:
        await asked.remember(session, [offer_made(volunteer=offered_volunteer(id=UUID(int=1)))])
    await run(desk.database, "UPDATE asked SET asked_at = now() - interval '60 days'")


async def test_a_reporters_words_reach_the_officers_of_the_place_with_the_code(desk: Desk) -> None:
    case = await reports(desk)
    await desk.says(BUDI, 'Pak, orangnya pindah\n ke "pasar" Namang')
    for officer in (NAMANG, PIKET):
        (message,) = await desk.to(officer)
        assert message.short_text == (
            f"JANGKAU ABCD2345: pelapor {BUDI} menulis: \"Pak, orangnya pindah ke 'pasar' Namang\""
        )
        assert (message.purpose, message.case_id, message.urgent) == (
            "forwarded", case.subject, True,
        )  # fmt: skip
    assert await desk.to(KOBA) == []
    _, thanks = await desk.to(BUDI)
    assert "kami teruskan ke petugas" in thanks.short_text
    assert await desk.kept() == [("forwarded", "reporter", "19.04")]


async def test_a_reporter_of_two_cases_means_the_one_whose_code_they_write(desk: Desk) -> None:
    await reports(desk, code="OLDER234")
    await reports(desk, code="NEWER234")
    await desk.says(BUDI, "bagaimana older234?")
    (message,) = await desk.to(PIKET)
    assert message.short_text.startswith("JANGKAU OLDER234")


async def test_a_strangers_words_reach_the_duty_officer_and_are_kept(desk: Desk) -> None:
    await desk.says(STRANGER, "ada kakek tidur di halte, sudah 2 hari")
    (message,) = await desk.to(PIKET)
    assert message.short_text == (
        f'JANGKAU: pesan dari {STRANGER} (bukan relawan): "ada kakek tidur di halte, sudah 2 hari"'
    )
    # Nobody spends a district's budget by writing to it.
    assert not message.urgent
    assert await desk.to(KOBA) == [] == await desk.to(NAMANG)
    (thanks,) = await desk.to(STRANGER)
    assert "teruskan ke petugas" in thanks.short_text
    assert await desk.kept() == [("forwarded", "stranger", "19.04")]


async def test_a_volunteer_without_an_offer_hears_what_they_can_do(desk: Desk) -> None:
    await was_asked(desk)
    await desk.says(SITI, "apakah ada tugas?")
    (message,) = await desk.to(SITI)
    assert "JADWAL" in message.short_text
    assert PIKET in message.short_text
    assert await desk.to(PIKET) == []
    assert await desk.kept() == [("ask", "no_offer", "19.04")]


async def test_a_volunteer_who_has_just_reported_is_heard_as_a_reporter(desk: Desk) -> None:
    await was_asked(desk)
    await reports(desk, phone=SITI, reported_at=await one(desk.database, "SELECT now()"))
    await desk.says(SITI, "orangnya sudah pindah ke pasar")
    assert [row.purpose for row in await desk.to(PIKET)] == ["forwarded"]


async def test_a_coordinator_is_told_how_and_their_words_are_kept(desk: Desk) -> None:
    await desk.says(KOBA, "tolong kirim orang lain")
    (message,) = await desk.to(KOBA)
    assert "jangkau case" in message.short_text
    assert await desk.to(PIKET) == []
    assert await desk.kept() == [("ask", "coordinator", "19.04")]


async def test_machines_and_signs_are_not_forwarded(desk: Desk) -> None:
    await desk.says(STRANGER, "out of office", nobody="auto_reply")
    await desk.says("TELKOMSEL", "kuota Anda", channel="sms")
    await desk.says(STRANGER, "...")
    assert await desk.to(PIKET) == []
    assert [meaning for meaning, _, _ in await desk.kept()] == ["ignored", "ignored", "ask"]
    assert "Mohon tulis" in (await desk.to(STRANGER))[0].short_text


async def test_one_sender_fills_no_officers_phone(desk: Desk) -> None:
    for number in range(8):
        await desk.says(STRANGER, f"pesan {number}")
    assert len(await desk.to(PIKET)) == 3
    # Thanked three times, and told once that the rest is kept: two machines end.
    assert [row.purpose for row in await desk.to(STRANGER)] == ["thanks"] * 4
    meanings = [meaning for meaning, _, _ in await desk.kept()]
    assert meanings == ["forwarded"] * 3 + ["kept"] * 5


async def test_a_flood_of_strangers_is_counted_in_one_message_when_the_hour_is_over(
    desk: Desk,
) -> None:
    for number in range(12):
        await desk.says(f"+62813777788{number:02}", f"pesan {number}")
    assert len(await desk.to(PIKET)) == 5
    assert await desk.hours_told() == 0, "the hour is not over"
    await desk.hour_passes()
    assert await desk.hours_told() == 1
    assert await desk.hours_told() == 0
    *_, summary = await desk.to(PIKET)
    assert (summary.purpose, len(await desk.to(PIKET))) == ("not_forwarded", 6)
    assert "7 pesan lain dari 7 pengirim" in summary.short_text
    # In the next hour they are heard again.
    await desk.says(STRANGER, "ada kakek tidur di halte")
    assert (await desk.to(PIKET))[-1].purpose == "forwarded"


async def test_strangers_who_write_at_the_same_moment_are_counted_one_after_another(
    desk: Desk,
) -> None:
    senders = [f"+62813777788{number:02}" for number in range(10)]
    await asyncio.gather(*(desk.says(sender, "ada kakek di halte") for sender in senders))
    # Three of the same text and no more go to one number: a loop of machines looks like that.
    meanings = sorted(meaning for meaning, _, _ in await desk.kept())
    assert meanings == ["forwarded"] * 5 + ["kept"] * 5


async def test_the_same_text_again_from_the_provider_is_forwarded_once(desk: Desk) -> None:
    await desk.says(STRANGER, "ada kakek tidur di halte")
    desk.ids = 0
    await desk.says(STRANGER, "ada kakek tidur di halte")
    assert len(await desk.to(PIKET)) == 1
    assert len(await desk.kept()) == 1


async def test_a_stranger_belongs_to_the_district_that_is_set_or_to_the_first(desk: Desk) -> None:
    districts = dict(desk.office.routes.districts)
    koba = districts["19.04"]
    own = replace(koba.policy.coordinators[0], phone="+6289000000999", email=None)
    two = {
        "19.71": replace(koba, code="19.71", policy=replace(koba.policy, coordinators=(own,))),
        "19.04": koba,
    }
    routes = replace(desk.office.routes, districts=two)
    desk.office = replace(desk.office, routes=routes)
    await desk.says(STRANGER, "tolong")
    assert (len(await desk.to(PIKET)), await desk.to("+6289000000999")) == (1, [])
    desk.office = replace(desk.office, strangers="19.71")
    await desk.says("+6281377770000", "tolong")
    assert (len(await desk.to(PIKET)), len(await desk.to("+6289000000999"))) == (1, 1)
    assert [district for _, _, district in await desk.kept()] == ["19.04", "19.71"]


async def test_a_district_without_officers_keeps_the_words_and_promises_nothing(desk: Desk) -> None:
    koba = desk.office.routes.districts["19.04"]
    nobody = {"19.04": replace(koba, policy=replace(koba.policy, coordinators=()))}
    desk.office = replace(desk.office, routes=replace(desk.office.routes, districts=nobody))
    await desk.says(STRANGER, "tolong")
    (thanks,) = await desk.to(STRANGER)
    assert "teruskan" not in thanks.short_text
    assert await desk.kept() == [("kept", "no_officer", "19.04")]


async def test_who_reported_is_forgotten_with_what_came_in(desk: Desk) -> None:
    await reports(desk)
    async with desk.database.transaction() as session:
        await inbound.forget(session, older_than=timedelta(days=1))
        assert len(await reported_by.of(session, BUDI)) == 1
    await run(desk.database, "UPDATE reported_by SET kept_at = now() - interval '2 days'")
    async with desk.database.transaction() as session:
        await inbound.forget(session, older_than=timedelta(days=1))
        assert await reported_by.of(session, BUDI) == []
