"""Slips of the thumb, as people make them on a telephone."""

import random


def mistyped(word: str, chance: random.Random) -> str:
    """A word with a letter left out, doubled, swapped with its neighbour or replaced."""
    at = chance.randrange(len(word))
    kind = chance.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[: at + 1] + word[at:]
    if kind == 2 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + chance.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]
