"""The districts that a command works with; one that is refused is told and holds up no other."""

from typing import TYPE_CHECKING

from rich.markup import escape

from ops.terminal import err, fail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shared.districts import Districts


def known_districts(
    folders: "Sequence[Path]", *, villages: bool = True, one: str | None = None
) -> "Districts":
    """Read the districts. Without ``one`` it is said on stderr which are left out, and why.

    Ends the command if there is none that can be used, or ``one`` is not among them.
    """
    from shared.districts import DistrictError, Districts

    try:
        districts = Districts(folders, villages=villages)
        if one is not None:
            districts.of(one)
    except DistrictError as error:
        raise fail(escape(str(error))) from None
    if one is None:
        for code, problem in districts.refused.items():
            err.print(
                f"[yellow]Left out:[/] district {code} is refused: {escape(problem)}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    return districts
