"""How to reach a person: telephone numbers in E.164 (ITU-T), so that one person has one number."""

from typing import Annotated

import lokal
import phonenumbers
from pydantic import AfterValidator, StringConstraints


class PhoneError(ValueError):
    """A text that is no telephone number, with a sentence that says so."""


def e164(text: str) -> str:
    """Normalise what people write: ``0812-3456 7890`` is ``+6281234567890``.

    Raises:
        PhoneError: it is no number that could be called.
    """
    indonesian = lokal.parse_phone(text)
    if indonesian.valid and indonesian.e164:
        return indonesian.e164
    try:
        number = phonenumbers.parse(text, "ID")
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        raise PhoneError(
            "This is not a telephone number. Write it as 0812 3456 7890, or with + and the "
            "country code."
        )
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _checked(value: str) -> str:
    try:
        return e164(value)
    except PhoneError as error:
        raise ValueError(str(error)) from None


Phone = Annotated[str, StringConstraints(max_length=40), AfterValidator(_checked)]
# Deliberately loose: an address is proven by a message that arrives, not by a pattern.
Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+$",
    ),
]
