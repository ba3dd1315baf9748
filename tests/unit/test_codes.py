"""Short codes that people read out and type."""

from hypothesis import given
from hypothesis import strategies as st

from shared import codes

SPACE = len(codes.ALPHABET) ** 5


def test_the_alphabet_has_nothing_that_looks_like_something_else() -> None:
    assert len(set(codes.ALPHABET)) == len(codes.ALPHABET)
    assert not set("0O1ILU") & set(codes.ALPHABET)
    assert codes.ALPHABET.upper() == codes.ALPHABET


def test_numbers_next_to_each_other_have_different_codes() -> None:
    assert len({codes.numbered_code(number) for number in range(1, 50_001)}) == 50_000


@given(st.integers(1, SPACE), st.integers(1, SPACE))
def test_no_two_numbers_share_a_code(one: int, other: int) -> None:
    same = codes.numbered_code(one) == codes.numbered_code(other)
    assert same == (one % SPACE == other % SPACE)


@given(st.integers(1, 10**12))
def test_a_numbered_code_has_five_characters_of_the_alphabet(number: int) -> None:
    code = codes.numbered_code(number)
    assert len(code) == 5
    assert set(code) <= set(codes.ALPHABET)


@given(st.integers(1, SPACE - 1))
def test_a_slip_of_one_letter_is_not_the_next_offer(number: int) -> None:
    one, following = codes.numbered_code(number), codes.numbered_code(number + 1)
    assert sum(a != b for a, b in zip(one, following, strict=True)) >= 2


def test_random_codes_are_not_repeated() -> None:
    drawn = {codes.random_code() for _ in range(10_000)}
    assert len(drawn) == 10_000
    assert {len(code) for code in drawn} == {10}


def test_a_typed_code_is_read_as_it_was_meant() -> None:
    assert codes.normalised(" abcd-2345 ") == "ABCD2345"


@given(st.integers(1, SPACE))
def test_reading_a_code_changes_nothing_of_it(number: int) -> None:
    code = codes.numbered_code(number)
    assert codes.normalised(code.lower()) == code
