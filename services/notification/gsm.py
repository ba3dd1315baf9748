"""What an SMS can carry and what it costs: the GSM 7 bit alphabet, septets, segments."""

import unicodedata

# 3GPP TS 23.038, 6.2.1: the GSM 7 bit default alphabet, and the characters that cost two septets.
GSM_BASIC = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED = set("^{}\\[~]|€\f")

# 3GPP TS 23.040, 9.2.3.24.1: a text of several segments gives six bytes of each to its numbering.
SEGMENT_SEPTETS = 160
PART_SEPTETS = 153
SEGMENT_UNITS = 70
PART_UNITS = 67

# What telephones and word processors write for what the alphabet has.
_STANDS_FOR = str.maketrans(
    {
        **dict.fromkeys("‘’‚′ʼʻ`´", "'"),  # noqa: RUF001 - Jum`at, Ma'rang
        **dict.fromkeys("“”„″«»", '"'),
        **dict.fromkeys("‐‑‒–—−", "-"),  # noqa: RUF001
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        "đ": "d",
        "Đ": "D",
        "ł": "l",
        "Ł": "L",
        "ı": "i",  # noqa: RUF001
    }
)


def is_gsm(text: str) -> bool:
    """Whether an SMS carries it in septets, more than twice as many to a segment as otherwise."""
    return all(character in GSM_BASIC or character in GSM_EXTENDED for character in text)


def septets(text: str) -> int:
    """Length of a text in GSM 7 bit septets; a segment holds 160.

    Raises:
        ValueError: a character is not in the alphabet and would turn the SMS into UCS-2.
    """
    count = 0
    for character in text:
        if character in GSM_BASIC:
            count += 1
        elif character in GSM_EXTENDED:
            count += 2
        else:
            raise ValueError(f"{character!r} is not in the GSM 7 bit alphabet")
    return count


def segments(text: str) -> int:
    """How many SMS a text costs: 160 septets in one and 153 in each of several; with a character
    that the alphabet does not have, 70 and 67 units of UTF-16."""
    if is_gsm(text):
        sizes = [1 if character in GSM_BASIC else 2 for character in text]
        return _parts(sizes, SEGMENT_SEPTETS, PART_SEPTETS)
    return _parts([1 if ord(c) < 0x10000 else 2 for c in text], SEGMENT_UNITS, PART_UNITS)


def _parts(sizes: list[int], alone: int, part: int) -> int:
    if sum(sizes) <= alone:
        return 1
    count, used = 1, 0
    for size in sizes:
        # A character of two is not divided between two segments.
        if used + size > part:
            count, used = count + 1, 0
        used += size
    return count


def gsm(text: str) -> str:
    """The nearest text in the basic GSM alphabet: accents go, what remains foreign is ``?``."""
    result = []
    for character in text.translate(_STANDS_FOR):
        if character in GSM_BASIC:
            result.append(character)
            continue
        plain = "".join(
            part for part in unicodedata.normalize("NFKD", character) if part in GSM_BASIC
        )
        # A mark on the letter before is no letter of its own.
        result.append(plain or ("" if unicodedata.combining(character) else "?"))
    return "".join(result)
