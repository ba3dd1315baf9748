"""What a secret has to be like to protect anything; said when a service starts, not by a thief.

There are two kinds. Ours is made by an operator, by chance, and whoever has it is let in: it must
be long and varied. Theirs is given by a provider, who answers for it: it must only be there.
"""

from dataclasses import dataclass

# Of 64 bits and more even if it is of digits alone: what can be tried through over no network.
SHORTEST = 16
# 16 hexadecimal digits drawn by chance have fewer different ones once in 28,000 times, 16 decimal
# ones once in 260; sixteen equal letters have one. So what has fewer was hardly drawn by chance.
FEWEST_DIFFERENT = 6


@dataclass(frozen=True)
class Ours:
    """Marks a setting as a secret of ours.

    ``shown``: callers show it in a header, so that it must be of what a header carries as it is.
    ``several``: it is a list with commas, each part a secret.
    ``outside_development_only``: a developer's own servers need no good one.
    """

    shown: bool = False
    several: bool = False
    outside_development_only: bool = False


def weakness(secret: str) -> str | None:
    """Why this protects nothing, as the end of a sentence; None if it may well do."""
    if len(secret) < SHORTEST:
        return f"has {len(secret)} characters; {SHORTEST} or more are needed, drawn by chance"
    if len(set(secret)) < FEWEST_DIFFERENT or _repeats_itself(secret):
        return "repeats itself and can be guessed; draw it by chance: openssl rand -hex 24"
    return None


def unfit_for_a_header(secret: str) -> str | None:
    """Why no caller could show this secret, as the end of a sentence; None if they can."""
    if not (secret.isascii() and secret.isprintable()):
        return "has characters that no header carries; use letters and digits"
    return None


def parts(secret: str) -> list[str]:
    """The secrets of a list with commas, without the blanks around them."""
    return [part for part in map(str.strip, secret.split(",")) if part]


def _repeats_itself(secret: str) -> bool:
    """Whether it is the same piece again and again, as ``passwordpassword``."""
    return secret in (secret + secret)[1:-1]
