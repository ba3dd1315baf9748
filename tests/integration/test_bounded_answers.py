"""A provider may answer without end, or pack its answer: what is read of it is bounded."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification.channels import Outgoing, UnknownOutcome
from services.notification.channels.apprise import Apprise
from services.notification.channels.bounded import ANSWER_AT_MOST, unpacked
from services.notification.channels.http import Provider
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.settings import NotificationSettings

# What the sockets on both sides and aiohttp hold beside what is read.
BETWEEN = 8 * 2**20


@asynccontextmanager
async def server(
    head: str, body: Callable[[], Any]
) -> AsyncIterator[tuple[str, list[int], list[bytes]]]:
    """A real server that answers everything so: its address, the bytes that it could send, and the
    requests."""
    sent: list[int] = []
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(0)
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
            for part in body():
                writer.write(part)
                await writer.drain()
                sent[-1] += len(part)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()[:2]
    async with listening:
        yield f"http://{host}:{port}", sent, asked


def message() -> Outgoing:
    return Outgoing(uuid4(), "+6281234567890", "YA", "YA", "YA")


def endless() -> Any:
    while True:
        yield b"x" * 65536


async def ask(url: str) -> str:
    provider = Provider(url, timeout_s=30, concurrency=1)
    try:
        return (await provider.call("POST", url, data=b"{}")).text
    finally:
        await provider.close()


async def test_an_answer_without_end_is_left_after_its_first_64_kib() -> None:
    async with server("content-type: text/plain\r\n", endless) as (url, sent, _):
        text = await ask(url)
    assert text == "x" * ANSWER_AT_MOST
    assert sent[0] < BETWEEN, "and its connection is closed"


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
async def test_a_bomb_is_unpacked_only_so_far(
    packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed twice, ten kilobytes hold ten gigabytes; of each layer no more than this is made."""
    bomb = gzip.compress(bytes(64 * 2**20)) if packing == "gzip" else zlib.compress(bytes(2**26))
    made: list[int] = []
    real = zlib.decompressobj

    class Counted:
        def __init__(self, form: int) -> None:
            self.one = real(form)

        def decompress(self, raw: bytes, at_most: int) -> bytes:
            found = self.one.decompress(raw, at_most)
            made.append(len(found))
            return found

        @property
        def unused_data(self) -> bytes:
            return self.one.unused_data

    monkeypatch.setattr("services.notification.channels.bounded.zlib.decompressobj", Counted)
    head = f"content-encoding: {packing}\r\ncontent-length: {len(bomb)}\r\n"
    async with server(head, lambda: [bomb]) as (url, _, asked):
        text = await ask(url)
    assert len(text) == ANSWER_AT_MOST
    assert sum(made) <= ANSWER_AT_MOST
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, gzip"])
async def test_what_is_packed_in_a_way_that_was_not_asked_for_is_not_unpacked(packing: str) -> None:
    body = gzip.compress(gzip.compress(b"OK"))
    head = f"content-encoding: {packing}\r\ncontent-length: {len(body)}\r\n"
    async with server(head, lambda: [body]) as (url, _, _):
        assert await ask(url) == ""


async def test_a_packed_answer_of_a_normal_size_is_understood() -> None:
    body = gzip.compress(b'{"id": "abc"}')
    head = f"content-encoding: gzip\r\ncontent-length: {len(body)}\r\n"
    async with server(head, lambda: [body]) as (url, _, _):
        channel = Sms(NotificationSettings(channels="sms", sms_url=url, sms_message_id="json:id"))
        try:
            assert await channel.send(message()) == "abc"
        finally:
            await channel.close()


async def test_a_success_that_is_cut_off_leaves_the_outcome_unknown() -> None:
    async with server("content-type: application/json\r\n", endless) as (url, _, _):
        settings = NotificationSettings(
            channels="twilio", twilio_url=url, twilio_account_sid="AC1", twilio_auth_token="t" * 32,
            twilio_from="+1", public_url="http://localhost:8003",
        )  # fmt: skip
        channel = Twilio(settings)
        try:
            with pytest.raises(UnknownOutcome):
                await channel.send(message())
        finally:
            await channel.close()


async def test_a_list_within_lists_without_end_is_no_answer() -> None:
    body = b"[" * ANSWER_AT_MOST
    async with server(f"content-length: {len(body)}\r\n", lambda: [body]) as (url, _, _):
        channel = Sms(NotificationSettings(channels="sms", sms_url=url, sms_success="json:ok=1"))
        try:
            with pytest.raises(UnknownOutcome):
                await channel.send(message())
        finally:
            await channel.close()


@pytest.mark.parametrize("packed", [False, True])
async def test_apprise_reads_no_more_of_an_answer_either(packed: bool) -> None:
    def bomb() -> Any:
        packing = zlib.compressobj(wbits=31)
        while True:
            yield packing.compress(bytes(2**20))

    head = "content-encoding: gzip\r\n" if packed else ""
    async with server(head, bomb if packed else endless) as (url, sent, _):
        address = url.removeprefix("http://")
        channel = Apprise(NotificationSettings(apprise_url=f"json://{address}/{{phone}}"))
        try:
            assert await channel.send(message()) == ""
        finally:
            await channel.close()
    assert sent[0] < BETWEEN


@given(body=st.binary(max_size=300), times=st.integers(1, 3), cut=st.integers(0, 40))
def test_whatever_is_packed_comes_out_as_far_as_it_is_whole(
    body: bytes, times: int, cut: int
) -> None:
    packed = gzip.compress(body) * times
    assert unpacked(packed) == body * times
    assert (body * times).startswith(unpacked(packed[: len(packed) - cut]))


@given(raw=st.binary(max_size=300))
def test_nothing_that_claims_to_be_packed_breaks_the_reader(raw: bytes) -> None:
    assert len(unpacked(raw)) <= ANSWER_AT_MOST
