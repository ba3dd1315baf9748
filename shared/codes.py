"""Short codes that people read out and type, without the letters and digits that look alike."""

import secrets

ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # no 0 O, 1 I L, U V
_SIZE = len(ALPHABET)


def random_code(length: int = 10) -> str:
    """A code that cannot be guessed: 10 characters are 5.9e14 possibilities.

    Those from before have 8, and stay good.
    """
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


# Coprime to the size of the code space, so that n -> n * STEP mod space visits every code once.
_STEP = 15_485_863


def numbered_code(number: int, length: int = 5) -> str:
    """The code of a sequence number: no two of the first 24 million are the same, and neighbours
    look unlike each other, so that a slip of the thumb does not hit somebody else's offer."""
    value = number * _STEP % _SIZE**length
    code = ""
    for _ in range(length):
        value, digit = divmod(value, _SIZE)
        code += ALPHABET[digit]
    return code


def normalised(code: str) -> str:
    """A code as it is stored, from what a person typed."""
    return "".join(character for character in code.upper() if character.isalnum())
