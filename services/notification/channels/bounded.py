"""What a provider answers, read as far as anybody needs it: no more, packed or not.

An answer is an id and a few words. Ten kilobytes can be packed so that they unpack to gigabytes,
and a server that is broken, or somebody else's by now, may send without end.
"""

import zlib

import aiohttp

# In bytes, as they stand in the answer and again after unpacking.
ANSWER_AT_MOST = 64 * 1024
# A provider is asked for none; this is what those that do not listen use.
_PACKED = {"gzip", "x-gzip", "deflate"}
# zlib finds out for itself which of its two forms it has; without either it is the bare one.
_EITHER_FORM = zlib.MAX_WBITS | 32
_BARE = -zlib.MAX_WBITS
_CHARSETS = {"utf-8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"}


async def text_of(answer: aiohttp.ClientResponse) -> str:
    """The beginning of an answer whose session unpacks nothing; the connection of one that is
    longer is closed."""
    raw = bytearray()
    while len(raw) <= ANSWER_AT_MOST:
        some = await answer.content.read(ANSWER_AT_MOST + 1 - len(raw))
        if not some:
            break
        raw += some
    else:
        answer.close()
    packed = answer.headers.get("content-encoding", "identity").strip().lower()
    body = bytes(raw[:ANSWER_AT_MOST])
    if packed in _PACKED:
        body = unpacked(body)
    elif packed not in ("", "identity"):
        body = b""  # in a way that was not asked for: nobody can read it here
    charset = (answer.charset or "").lower()
    return body.decode(charset if charset in _CHARSETS else "utf-8", "replace")


def unpacked(raw: bytes) -> bytes:
    """The beginning of what was packed; what is damaged ends where the damage begins."""
    try:
        return _unpacked(raw, _EITHER_FORM)
    except zlib.error:
        pass
    try:
        return _unpacked(raw, _BARE)
    except zlib.error:
        return b""


def _unpacked(raw: bytes, form: int) -> bytes:
    found = bytearray()
    # Packed files may follow each other in one answer.
    while raw and len(found) < ANSWER_AT_MOST:
        one = zlib.decompressobj(form)
        try:
            found += one.decompress(raw, ANSWER_AT_MOST - len(found))
        except zlib.error:
            if not found:
                raise
            break
        raw = one.unused_data
    return bytes(found)
