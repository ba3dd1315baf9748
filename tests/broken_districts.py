"""Kinds of broken district folders, beside one that works: what a person or a disk does to them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.unit.test_districts import PLACES
from tests.unit.test_policy import POLICY

PROJECT = Path(__file__).parents[1]
WORKS, BROKEN = "19.04", "99.01"


def good_district(folder: Path) -> Path:
    """A copy of the sample district."""
    home = folder / WORKS
    home.mkdir(parents=True)
    for name in ("places.toml", "policy.toml"):
        text = (PROJECT / "districts" / WORKS / name).read_text(encoding="utf-8")
        (home / name).write_text(text, encoding="utf-8")
    return home


def district(folder: Path, code: str = BROKEN) -> Path:
    """A synthetic district that works until something is done to it."""
    home = folder / code
    home.mkdir(parents=True)
    (home / "places.toml").write_text(PLACES.replace(BROKEN, code), encoding="utf-8")
    (home / "policy.toml").write_text(POLICY.replace(BROKEN, code), encoding="utf-8")
    return home


def _replaced(file: str, before: str, after: str) -> Callable[[Path], None]:
    def act(home: Path) -> None:
        text = (home / file).read_text(encoding="utf-8")
        assert before in text
        (home / file).write_text(text.replace(before, after, 1), encoding="utf-8")

    return act


def _written(file: str, content: bytes) -> Callable[[Path], None]:
    def act(home: Path) -> None:
        (home / file).write_bytes(content)

    return act


def _a_folder(file: str) -> Callable[[Path], None]:
    def act(home: Path) -> None:
        (home / file).unlink()
        (home / file).mkdir()

    return act


def _without(*files: str) -> Callable[[Path], None]:
    def act(home: Path) -> None:
        for file in files:
            (home / file).unlink()

    return act


def _a_loop(home: Path) -> None:
    """A file that cannot be opened, whoever asks."""
    (home / "policy.toml").unlink()
    (home / "policy.toml").symlink_to("policy.toml")


# What is done to the folder, and what the refusal says of it.
BREAKAGES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "a time zone that there is not": (
        _replaced("places.toml", "America/Los_Angeles", "WIB"),
        "places.toml: line 5: timezone: must be a time zone such as Asia/Jakarta",
    ),
    "a folder for a time zone": (
        _replaced("places.toml", "America/Los_Angeles", "America"), "line 5: timezone",
    ),
    "no places": (_without("places.toml"), "places.toml: is missing"),
    "no policy": (_without("policy.toml"), "policy.toml: is missing"),
    "an empty folder": (_without("places.toml", "policy.toml"), "places.toml: is missing"),
    "an empty file": (_written("policy.toml", b""), "policy.toml: line 1: answer: is missing"),
    "no TOML": (_written("policy.toml", b"[answer\n"), "policy.toml: is not valid TOML"),
    "half a file": (
        _written("places.toml", PLACES[:60].encode()), "places.toml: ",
    ),
    "deep brackets": (_written("policy.toml", b"a=" + b"[" * 20_000), "is not valid TOML"),
    "a number without end": (_written("policy.toml", b"a=" + b"9" * 5000), "is not valid TOML"),
    "Windows text": (
        _written("places.toml", PLACES.replace("Venice", "Véneto").encode("cp1252")),
        "places.toml: is not UTF-8 text",
    ),
    "a zero byte": (_written("places.toml", b"\x00" + PLACES.encode()), "is not valid TOML"),
    "too large": (_written("policy.toml", b"#" * 400_000), "has more than 300,000 bytes"),
    "an unknown key": (
        _replaced("policy.toml", "rounds = 2", "round = 2"),
        "search.round: is not a known key",
    ),
    "a number out of range": (
        _replaced("policy.toml", "rounds = 2", "rounds = 0"), "line 19: search.rounds",
    ),
    "a latitude that is none": (
        _replaced("places.toml", "34.05", "212.9"), "line 11: subdistricts[0].latitude",
    ),
    "no subdistricts": (
        _written("places.toml", PLACES[: PLACES.index("[[")].encode()),
        "subdistricts: is missing",
    ),
    "a subdistrict twice": (
        _replaced("places.toml", "99.01.002", "99.01.001"), "99.01.001 is there twice",
    ),
    "another's code": (_replaced("places.toml", '"99.01"', '"19.04"'), "is 19.04, but the folder"),
    "another's subdistrict": (
        _replaced("places.toml", '"99.01.002"', '"19.04.01"'), "must start with 99.01.",
    ),
    "a neighbour without a folder": (
        _replaced("policy.toml", "neighbours = []", 'neighbours = ["19.99"]'),
        "19.99 has no folder here",
    ),
    "a folder for a file": (_a_folder("policy.toml"), "policy.toml: is not a file"),
    "a link in a circle": (_a_loop, "policy.toml: "),
}  # fmt: skip
