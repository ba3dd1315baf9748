"""What a volunteer sees: the message on the phone, the page behind its link, step by step.

The whole system runs, and the browser is a real one of 360 px without JavaScript.
"""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from playwright.async_api import Page, ViewportSize, async_playwright, expect

from ops.embedded import Stack, running
from tests import servers
from tests.playing import import_sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian's package: chromium)"
)

REPORT = {
    "category": "elderly_abandoned",
    "urgency": "urgent",
    "place": {"latitude": -2.493, "longitude": 106.408},
    "reporter": {"name": "Bu Ratna", "phone": "0811 7171 234"},
}
CONTACT = "+628117171234"
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    run = f"page{uuid4().hex[:8]}"
    with servers.scratch("jangkau-browser-") as data_dir:
        async with (
            servers.for_a_stack(run=run),
            running(data_dir, output=lambda source, line: None, run=run) as started,
        ):
            await import_sample(started)
            yield started


@asynccontextmanager
async def phone(*arguments: str, **looks: Any) -> AsyncIterator[Page]:
    """A browser as on a small phone; it runs no script and loads nothing from elsewhere."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *arguments]
        )
        context = await browser.new_context(
            viewport=PHONE, java_script_enabled=False, locale="id-ID", **looks
        )
        yield await context.new_page()
        await browser.close()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with phone() as opened:
        yield opened


async def report(stack: Stack, **values: Any) -> str:
    """Send a report; returns its case."""
    async with httpx2.AsyncClient(headers=stack.signed_in) as http:
        answer = await http.post(f"{stack.url('intake')}/v1/reports", json=REPORT | values)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["case_id"])


async def link_on_a_phone(page: Page, stack: Stack) -> str:
    """The link of an offer, as it stands in the newest message on a sandbox phone."""
    await page.goto(f"{stack.url('notification')}/sandbox")
    link = page.locator("li a[href*='/r/']").first
    for _ in range(240):
        if await link.count():
            break
        await page.wait_for_timeout(500)
        await page.goto(f"{stack.url('notification')}/sandbox")
    href = await link.get_attribute("href")
    assert href is not None
    return href


async def test_from_the_message_to_the_end_of_the_case(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    case_id = await report(stack)
    await page.goto(await link_on_a_phone(page, stack))
    await expect(page.get_by_role("heading", level=1)).to_have_text("lansia terlantar")
    await expect(page.get_by_text("MENDESAK")).to_be_visible()
    await expect(page.get_by_text("Kec. Koba")).to_be_visible()
    await expect(page.get_by_text(CONTACT)).to_have_count(0)
    assert re.match(r"geo:-2\.49", await href_of(page, "Buka peta"))
    await shoot(page, tmp_path / "1-open.png")

    await page.get_by_role("button", name="Ya, saya datang").click()
    await expect(page.get_by_text("Anda menangani kasus ini.")).to_be_visible(timeout=20_000)
    await expect(page.get_by_text("Bu Ratna")).to_be_visible()
    await expect(page.get_by_text(CONTACT, exact=True)).to_be_visible()
    assert await href_of(page, "Telepon") == f"tel:{CONTACT}"
    await shoot(page, tmp_path / "2-accepted.png")

    await page.get_by_role("button", name="Saya sudah tiba").click()
    await expect(page.get_by_text("Anda sudah tiba.")).to_be_visible(timeout=20_000)
    await shoot(page, tmp_path / "3-arrived.png")

    await page.get_by_text("Selesai", exact=True).click()
    await page.get_by_label("Dirujuk ke layanan lain").check()
    await page.get_by_label("Catatan").fill("diantar ke puskesmas Koba")
    await page.get_by_role("button", name="Kirim: selesai").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Selesai. Terima kasih banyak!", timeout=20_000
    )
    await expect(page.get_by_text(CONTACT)).to_have_count(0)
    await shoot(page, tmp_path / "4-done.png")

    (case,) = await stack.rows("assignment", "SELECT id, state, outcome FROM cases")
    assert (str(case.id), case.state, case.outcome) == (case_id, "closed", "referred")
    answered = await stack.rows(
        "assignment", "SELECT answer, words FROM answers ORDER BY recorded_at"
    )
    assert [tuple(row) for row in answered] == [
        ("accept", None), ("arrived", None), ("done", "diantar ke puskesmas Koba")
    ]  # fmt: skip
    news = await stack.rows(
        "notification",
        "SELECT purpose FROM messages WHERE recipient LIKE 'reporter:%' ORDER BY created_at",
    )
    assert [row.purpose for row in news] == ["acknowledged", "news_accepted", "news_closed"]


async def test_whoever_said_no_has_nothing_left_to_press(page: Page, stack: Stack) -> None:
    await report(stack)
    link = await link_on_a_phone(page, stack)
    await page.goto(link)
    await page.get_by_text("Tambah pesan").click()
    await page.get_by_label("Pesan untuk koordinator").fill("sedang di luar kota")
    await page.get_by_role("button", name="Tidak bisa").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Anda menjawab tidak bisa", timeout=20_000
    )
    await page.goto(link)
    await expect(page.get_by_role("button")).to_have_count(0)
    await page.goto(link[:-1] + ("A" if link[-1] != "A" else "B"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Tautan ini tidak benar")
    (said,) = await stack.rows("assignment", "SELECT answer, words, channel FROM answers")
    assert tuple(said) == ("decline", "sedang di luar kota", "link")


async def test_letters_of_twice_the_size_and_a_dark_screen_fit_the_phone(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    await report(stack)
    link = await link_on_a_phone(page, stack)
    large = "--blink-settings=defaultFontSize=32"
    async with phone(large, color_scheme="dark") as reader:
        asked_for: list[str] = []
        reader.on("request", lambda request: asked_for.append(request.url))
        await reader.goto(link)
        await shoot(reader, tmp_path / "large-open.png")
        assert asked_for == [link]  # the page is all that is loaded
        await reader.get_by_role("button", name="Ya, saya datang").click()
        await expect(reader.get_by_text("Anda menangani kasus ini.")).to_be_visible(timeout=20_000)
        for title in ("Selesai", "Ada kendala", "Tidak jadi datang"):
            await reader.get_by_text(title, exact=True).click()
        await shoot(reader, tmp_path / "large-accepted.png")
        for button in await reader.get_by_role("button").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44


async def href_of(page: Page, name: str) -> str:
    return await page.get_by_role("link", name=name).get_attribute("href") or ""


async def shoot(page: Page, file: Path) -> None:
    """A picture of the whole page, which must not be wider than the phone."""
    picture = await page.screenshot(path=file, full_page=True)
    width = int.from_bytes(picture[16:20])  # of a PNG
    assert width == PHONE["width"]
