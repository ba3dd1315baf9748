"""One trace from the report to the message."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tracing import traceparent_of

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SHAPE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def test_the_callers_trace_goes_on() -> None:
    assert traceparent_of(VALID) == VALID


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        VALID.upper(),
        VALID.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        VALID + "-extra",
        VALID + "\n",
    ],
)
def test_an_invalid_trace_is_replaced_by_a_new_one(header: str | None) -> None:
    made = traceparent_of(header)
    assert made != header
    assert SHAPE.fullmatch(made)
    assert traceparent_of(header) != made


@given(st.text())
def test_whatever_comes_in_a_valid_trace_comes_out(header: str) -> None:
    assert SHAPE.fullmatch(traceparent_of(header))
