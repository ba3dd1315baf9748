"""Telephone numbers, kept in E.164 (ITU-T) so that one person has one number."""

import lokal
import phonenumbers


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
