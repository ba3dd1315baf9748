"""The demo plays a file of reports and counts; its JSON is what scripts read."""

import asyncio
import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from ops.demo import Show
from ops.synthetic import read_reports
from tests import servers
from tests.playing import nothing_is_lost, play

PROJECT = Path(__file__).parents[2]
# Real reports of any city, to be named by whoever has some.
TRIAL_REPORTS = os.environ.get("JANGKAU_TRIAL_REPORTS", "")

REPORTS = """reported_at,latitude,longitude,type,channel,area
2018-01-01T00:15:17,34.0802659459,-118.217726077,Homeless Encampment,Mobile App,LINCOLN HEIGHTS
2018-01-01T01:21:40,34.0843686726,-118.222055625,Homeless Encampment,Self Service,CYPRESS PARK
2018-01-01T02:21:40,34.0843,-118.2221,Bulky Items,,CYPRESS PARK
"""


async def demo(file: Path) -> dict[str, object]:
    """What `jangkau demo --reports FILE --json` prints."""
    async with servers.for_a_stack(run=f"demo{uuid4().hex[:8]}"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", "demo", "--reports", str(file), "--json",
            cwd=PROJECT, env=os.environ,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    printed: dict[str, object] = json.loads(out)
    return printed


def all_became_messages(found: dict[str, object], reports: int) -> None:
    assert found["reports"] == found["cases"] == reports
    assert (found["lost"], found["dead_letters"], found["escalated"]) == (0, 0, 0)
    assert int(str(found["offers"])) + int(str(found["waiting"])) == reports
    assert found["messages_sent"] == found["offers"]


async def test_any_file_of_reports_can_be_played(tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text(REPORTS, encoding="utf-8")
    found = await demo(file)
    all_became_messages(found, 3)
    assert found["broker"] in ("embedded", "given")
    latency = found["report_to_message_ms"]
    assert isinstance(latency, dict)
    assert 0 < latency["p50"] <= latency["p99"]


@pytest.mark.skipif(not TRIAL_REPORTS, reason="JANGKAU_TRIAL_REPORTS names no file of reports")
async def test_real_reports_of_another_city_all_become_messages() -> None:
    file = Path(TRIAL_REPORTS)
    all_became_messages(await demo(file), len(read_reports(file)))


async def test_a_broken_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text(REPORTS + "yesterday,34.1,-118.2,Homeless,,X\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", "demo", "--reports", str(file), "--json",
        cwd=PROJECT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert "line 5" in err.decode()


async def test_every_case_ends_when_volunteers_answer_are_silent_or_hand_back() -> None:
    result = await play(Show(answers="mixed", answer_s=1.5, limit=20))
    nothing_is_lost(result)
    assert sum(result.states.values()) == 20
    assert result.accepted + result.escalated >= 20
    assert min(result.declined, result.expired, result.reoffers, result.answers) > 0
    assert result.late_next_offer_ms.p99 is not None
