"""Reads a workbook from standard input and writes its cells as JSON; see `sheets`.

``python -m services.assignment.workbook < volunteers.xlsx``
"""

import io
import json
import resource
import sys

from python_calamine import CalamineError, load_workbook

from services.assignment import sheets


def main() -> int:
    """Write ``[[name, rows], …]``; ends with 1 if it is no workbook, by a signal if too large."""
    resource.setrlimit(resource.RLIMIT_AS, (sheets.READER_MEMORY, sheets.READER_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (sheets.READER_SECONDS, sheets.READER_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = []
    try:
        book = load_workbook(io.BytesIO(sys.stdin.buffer.read()))
        for name in book.sheet_names[: sheets.MOST_SHEETS]:
            sheet = book.get_sheet_by_name(name)
            # One more of each, so that what is too much is seen as such.
            rows = sheet.to_python(skip_empty_area=False, nrows=sheets.MOST_ROWS + 1)
            most = sheets.MOST_COLUMNS + 1
            found.append((name, [[sheets.as_text(cell) for cell in row[:most]] for row in rows]))
    except (CalamineError, MemoryError, ValueError, OSError, KeyError):
        return 1
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
