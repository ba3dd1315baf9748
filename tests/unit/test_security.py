"""Signed links: who may open what, and for how long."""

import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from shared.security import BadLink, Links

OLD, NEW = "the key of last year", "the key of this year"
DAY = timedelta(days=1)
links = Links([NEW])


def signed(ago: timedelta, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that was made so long ago."""
    made_at = int(time.time() - ago.total_seconds())
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: made_at)
        return links.token("volunteer", "Siti")


@given(st.text(max_size=60))
def test_a_link_gives_back_what_it_was_made_for(value: str) -> None:
    token = links.token("volunteer", value)
    assert links.value("volunteer", token, DAY) == value
    assert set(token) <= set("-_.") | set(map(chr, range(48, 123))), "needs no escape in a link"


@given(st.integers(0), st.sampled_from("AZaz09-_."))
def test_a_link_with_another_letter_opens_nothing(where: int, letter: str) -> None:
    token = links.token("volunteer", "0198c5a0-0000-7000-8000-000000000000")
    where %= len(token) - 1  # of the last letter only some bits count
    changed = token[:where] + letter + token[where + 1 :]
    if changed != token:
        with pytest.raises(BadLink) as refused:
            links.value("volunteer", changed, DAY)
        assert not refused.value.too_old


@given(st.text(max_size=200))
def test_no_text_is_a_crash(text: str) -> None:
    with pytest.raises(BadLink, match="not one of ours"):
        links.value("volunteer", text, DAY)


def test_a_link_for_one_purpose_opens_no_other() -> None:
    with pytest.raises(BadLink):
        links.value("status", links.token("volunteer", "Siti"), DAY)


def test_an_old_link_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert links.value("volunteer", signed(DAY / 2, monkeypatch), DAY) == "Siti"
    with pytest.raises(BadLink, match="too old") as refused:
        links.value("volunteer", signed(2 * DAY, monkeypatch), DAY)
    assert refused.value.too_old


def test_a_link_of_a_host_whose_clock_runs_ahead_is_a_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert links.value("volunteer", signed(timedelta(minutes=-10), monkeypatch), DAY) == "Siti"


@pytest.mark.parametrize(
    ("keys", "opens"), [([NEW, OLD], True), ([OLD, NEW], True), ([OLD], False)]
)
def test_the_newest_key_signs_and_all_of_them_verify(keys: Sequence[str], opens: bool) -> None:
    token = Links([NEW, OLD]).token("volunteer", "Siti")
    if opens:
        assert Links(keys).value("volunteer", token, DAY) == "Siti"
    else:
        with pytest.raises(BadLink):
            Links(keys).value("volunteer", token, DAY)


def test_a_link_is_not_signed_with_sha_1() -> None:
    weak = URLSafeTimedSerializer(NEW, salt="jangkau.volunteer").dumps("Siti")
    with pytest.raises(BadLink):
        links.value("volunteer", str(weak), DAY)


@pytest.mark.parametrize("keys", [[], ["short"], [NEW, "short"]])
def test_keys_that_protect_nothing_are_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="link keys"):
        Links(keys)
