"""No mail takes long to read, whatever a stranger makes of it: counted in steps, not in seconds.

What Python does is counted line by line, in our code and in the library's. What it does not see is
bounded before it begins: how many tags the HTML parser is given, how many bytes are decoded.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification import html_words, mail
from services.notification.html_words import TAGS_AT_MOST, words_of
from services.notification.own_words import TEXT_AT_MOST, own_words

# The worst of those below takes 400,000.
STEPS_AT_MOST = 1_000_000
GROWS_BY_AT_MOST = 2.6


def steps(work: Callable[[], Any]) -> int:
    """How many lines of Python run, of ours and of all that we call."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def html(body: str) -> bytes:
    return b"From: siti@example.org\nContent-Type: text/html\n\n" + body.encode()


def nested(levels: int) -> bytes:
    parts = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(levels)
    )
    return b"From: siti@example.org\n" + parts.encode()


# Each gets larger with its number, and cost its square or more before.
NASTY: dict[str, Callable[[int], bytes]] = {
    "a tag without end": lambda n: html("<" + "a" * 20 * n),
    "tags that are never closed": lambda n: html("<a" * 10 * n),
    "silent elements closed by others": lambda n: html("<head>" * n + "</style>" * n),
    "paragraphs within open formats": lambda n: html(
        "".join(f"<b x={m}>" for m in range(n)) + "<p>" * n
    ),
    "divisions closed by paragraphs": lambda n: html("<div>" * n + "</p>" * n),
    "comments": lambda n: html("<!--" * 5 * n),
    "multiparts within multiparts": nested,
    "many parts": lambda n: (
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\nYA\n" * (5 * n)
    ),
    "many headers": lambda n: b"X: y\n" * (10 * n) + b"\nYA",
    "a header without end": lambda n: b"Subject: " + b"=?utf-8?q?a?= " * (10 * n) + b"\n\nYA",
    "comments in an address": lambda n: b"From: " + b"(" * (20 * n) + b"\n\nYA",
    "lines": lambda n: b"From: a@b.id\n\n" + b"\n" * (30 * n),
    "lines of one carriage return": lambda n: b"From: a@b.id\n\n" + b"\r" * (30 * n),
    "introductions": lambda n: b"From: a@b.id\n\n" + b"On a\n" * (4 * n) + b"x wrote x",
    "a charset in Python": lambda n: (
        b"Content-Type: text/plain; charset=punycode\n\n" + b"a" * (20 * n) + b"-" + b"b9" * 10 * n
    ),
    "parameters": lambda n: b"Content-Type: text/plain; " + b"a*0*=x; " * (10 * n) + b"\n\nYA",
}


@pytest.mark.parametrize("kind", NASTY)
def test_a_mail_twice_as_large_takes_at_most_twice_the_steps(kind: str) -> None:
    make = NASTY[kind]
    mail.read(make(10))  # what is imported or compiled once
    small, large = (steps(lambda n=n: mail.read(make(n))) for n in (100, 200))  # type: ignore[misc]
    assert large <= GROWS_BY_AT_MOST * small + 500


@pytest.mark.parametrize("kind", NASTY)
def test_the_largest_mail_of_each_kind_is_read_in_a_bounded_number_of_steps(kind: str) -> None:
    raw = NASTY[kind](20_000)
    assert steps(lambda: mail.read(raw)) < STEPS_AT_MOST


def test_no_tag_brings_lexbor_more_attributes_than_fit_into_a_piece() -> None:
    many = "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">"
    for text in (many, many.replace(" ", " x='>'", 1), f"YA<b>{many}" * 3):
        pieces = html_words.beginning(text).split("<")
        assert max(map(len, pieces)) <= html_words.PIECE_AT_MOST
    assert "YA" in html_words.words_of(f"<p>YA</p>{many}")


PIECES = st.sampled_from(
    [b"<", b">", b"<a ", b"</p>", b"<div>", b"<b x=1>", b"<p>", b"<table>", b"<head>", b"<!--",
     b"--b\n", b"--b--\n", b"Content-Type: multipart/mixed; boundary=b\n\n", b"message/rfc822",
     b"Content-Type: text/html\n\n", b"On ", b"wrote:", b"From:", b"To:", b"\n", b"\r", b"_", b"-",
     b"=?utf-8?q?", b"?=", b"(", b"&amp", b"&#x0;", b"\xff", b"x", b"> "]
)  # fmt: skip
RUNS = st.lists(
    st.tuples(st.lists(PIECES, min_size=1, max_size=4), st.integers(1, 3000)), max_size=5
)


@given(head=st.sampled_from([b"", b"From: a@b.id\n\n", html("")]), runs=RUNS)
def test_no_mail_that_can_be_made_of_such_pieces_takes_more_steps_than_the_bound(
    head: bytes, runs: list[tuple[list[bytes], int]]
) -> None:
    raw = head + b"".join(b"".join(pieces) * count for pieces, count in runs)
    assert steps(lambda: mail.read(raw)) < STEPS_AT_MOST


@given(runs=RUNS)
def test_no_more_of_a_mail_is_read_than_its_bounds(runs: list[tuple[list[bytes], int]]) -> None:
    read = mail.bounded(b"".join(b"".join(pieces) * count for pieces, count in runs))
    assert len(read) <= mail.MAIL_AT_MOST
    assert read.count(b"\n") <= mail.LINES_AT_MOST
    assert read.count(b"\n--") <= mail.PARTS_AT_MOST
    assert read.lower().count(b"multipart/") <= mail.LEVELS_AT_MOST


@given(pieces=st.lists(st.sampled_from(["<", "<b>", "<p", "a", "</div>"]), max_size=50),
       count=st.integers(1, 500))  # fmt: skip
def test_the_parser_of_html_is_given_only_so_many_tags(pieces: list[str], count: int) -> None:
    given = html_words.beginning("".join(pieces) * count)
    assert given.count("<") <= TAGS_AT_MOST


@given(text=st.text(alphabet="On wrote:>\n-_Dari From a*\t", max_size=4000))
def test_own_words_take_a_few_steps_for_each_line(text: str) -> None:
    lines = text.count("\n") + 1
    assert steps(lambda: own_words(text)) <= 200 * lines + 200


def test_the_words_in_front_of_what_is_cut_are_read() -> None:
    rest = "<b>x</b>" * TAGS_AT_MOST
    assert words_of(f"<p>Ya, <b>saya</b> bisa</p>{rest}").strip().startswith("Ya, saya bisa")
    assert own_words("YA\n" + "x" * 2 * TEXT_AT_MOST).startswith("YA")
