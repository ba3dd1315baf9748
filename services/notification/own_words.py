"""What the writer of a mail has added themselves: line by line, so that no text takes long.

Each line is looked at a few times whatever stands in the others; a pattern over the whole text
would try every line as a beginning for every other as an end.
"""

from collections.abc import Sequence

# Nobody answers an offer with more; the rest is what they quote.
TEXT_AT_MOST = 20_000

# Where the mail that is answered begins: "On …, Jangkau <…> wrote:" over up to three lines, and as
# Gmail and Thunderbird say it in Indonesian.
_INTRODUCTIONS = ("on", "pada")
_ENDS = ("wrote", "menulis")
_INTRODUCED_WITHIN = 3
# Outlook puts the head of the old mail there, often below a line.
_OLD_MAIL = ("original message", "forwarded message", "pesan asli", "pesan terusan")
_FROM = ("from", "dari")
_FIELDS = ("sent", "date", "to", "terkirim", "dikirim", "tanggal", "kepada", "ke")
_HEAD_WITHIN = 4
_RULE_AT_LEAST = 20
_SIGNATURES = (
    "sent from", "dikirim dari", "terkirim dari", "get outlook for", "dapatkan outlook untuk",
)  # fmt: skip
_BLANKS = " \t"


def own_words(text: str) -> str:
    """What the writer has added: without the mail that they answer, and without a signature."""
    lines = text.replace("\r\n", "\n")[:TEXT_AT_MOST].split("\n")
    introduced = _introduction(lines)
    if introduced is not None and not "".join(lines[: introduced[0]]).strip():
        lines = lines[introduced[1] :]  # they have written below what they answer
        introduced = None
    ends = [introduced[0]] if introduced else []
    ends += [number for number in range(len(lines)) if _is_old_mail(lines, number)][:1]
    lines = [line for line in lines[: min(ends, default=None)] if not line.lstrip().startswith(">")]
    # After the quotation, which may hold a signature of ours.
    signature = next((n for n, line in enumerate(lines) if _is_signature(line)), None)
    return "\n".join(lines[:signature]).strip()


def _introduction(lines: Sequence[str]) -> tuple[int, int] | None:
    """The lines from and up to which the first introduction goes; None: there is none."""
    for number, line in enumerate(lines):
        if not _begins(line.lstrip(_BLANKS + ">"), _INTRODUCTIONS):
            continue
        for last in range(number, min(number + _INTRODUCED_WITHIN, len(lines))):
            if _ends_introduction(lines[last]):
                return number, last + 1
    return None


def _ends_introduction(line: str) -> bool:
    said = line.rstrip(_BLANKS)
    if not said.endswith(":"):
        return False
    said = said[:-1].rstrip(_BLANKS).lower()
    word = next((word for word in _ENDS if said.endswith(word)), None)
    return word is not None and not _is_of_word(said[: -len(word)][-1:])


def _is_old_mail(lines: Sequence[str], number: int) -> bool:
    line = lines[number].strip(_BLANKS)
    if line.startswith("--") and line.endswith("--"):
        return line.strip("-").strip(_BLANKS).lower() in _OLD_MAIL
    if line.startswith("_"):
        return len(line) >= _RULE_AT_LEAST and not line.strip("_")
    if _field(line) not in _FROM:
        return False
    return any(_field(other) in _FIELDS for other in lines[number + 1 : number + _HEAD_WITHIN])


def _field(line: str) -> str:
    """The name of the field that a line of a head is, such as ``*From:* …``; else nothing."""
    name, colon, _ = line.lstrip(_BLANKS).removeprefix("*").partition(":")
    return name.rstrip(_BLANKS).lower() if colon else ""


def _is_signature(line: str) -> bool:
    return line.rstrip(_BLANKS) == "--" or _begins(line, _SIGNATURES)


def _begins(line: str, words: Sequence[str]) -> bool:
    """Whether a line begins with one of these, as whole words."""
    begun = line[:40].lower()
    return any(begun.startswith(w) and not _is_of_word(begun[len(w) :][:1]) for w in words)


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"
