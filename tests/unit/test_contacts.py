"""One person has one number, however it is written."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contacts import PhoneError, e164


@pytest.mark.parametrize(
    "written",
    ["081234567890", "0812-3456-7890", "0812 3456 7890", "+62 812 3456 7890", "6281234567890"],
)
def test_an_indonesian_number_is_one_however_it_is_written(written: str) -> None:
    assert e164(written) == "+6281234567890"


def test_a_foreign_number_keeps_its_country() -> None:
    assert e164("+65 6521 8000") == "+6565218000"


@pytest.mark.parametrize(
    "written", ["", "112a", "halo", "0", "+62", "08123", "0812345678901234567"]
)
def test_what_is_no_number_is_told_in_a_sentence(written: str) -> None:
    with pytest.raises(PhoneError, match="not a telephone number"):
        e164(written)


@given(st.text(max_size=40))
def test_no_text_makes_it_fail_otherwise(written: str) -> None:
    with contextlib.suppress(PhoneError):
        assert e164(written).startswith("+")
