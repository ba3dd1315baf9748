"""A real HTTP gateway that counts what it is asked to send."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Gateway:
    """``calls`` counts requests by our message id."""

    url: str
    calls: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """Listen on a free port of 127.0.0.1 until the end of the block."""
    stub = Gateway("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                stub.calls[json.loads(await reader.readexactly(length))["id"]] += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/send"
    try:
        yield stub
    finally:
        server.close()
