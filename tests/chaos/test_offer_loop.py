"""The offer loop under faults: one acceptance, nobody asked twice, every case ends."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from ops.demo import Show
from shared.database import Database
from shared.districts import District
from tests.chaos.test_killed import PROJECT, crashing
from tests.factories import KOBA, case_reported
from tests.integration.cases import feed_of, offers_of, report, volunteer, with_policy
from tests.integration.conftest import rows
from tests.playing import SHORT_LEASE, nothing_is_lost, play

PROCESSES = 4
ACCEPTS = 200


async def test_200_accepts_in_several_processes_have_one_winner_and_polite_refusals(
    assignment_database: Database, districts: dict[str, District], tmp_path: Path
) -> None:
    db = assignment_database
    policy = with_policy(districts, parallel={"normal": 5, "urgent": 5})
    for number in range(5):
        await volunteer(db, KOBA[0] + number * 0.01, KOBA[1])
    case = case_reported()
    await report(db, policy, case)
    made = await offers_of(db, case)
    assert len(made) == 5
    file = tmp_path / "offers.json"
    file.write_text(
        json.dumps([{k: str(o[k]) for k in ("id", "case_id", "volunteer_id")} for o in made])
    )
    url = db.engine.url.render_as_string(hide_password=False)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.accepting", url, str(file),
            str(ACCEPTS // PROCESSES), cwd=PROJECT, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    verdicts: Counter[str] = Counter()
    for process in processes:
        out, _ = await process.communicate()
        assert process.returncode == 0
        verdicts.update(json.loads(out))
    assert verdicts == {
        "recorded": 1,
        "already_recorded": ACCEPTS // 5 - 1,
        "taken_by_another": ACCEPTS * 4 // 5,
    }
    states = Counter(offer.state for offer in await offers_of(db, case))
    assert states == {"accepted": 1, "withdrawn": 4}
    (winner,) = [o.volunteer_id for o in await offers_of(db, case) if o.state == "accepted"]
    places = {r.id: r.open_cases for r in await rows(db, "SELECT id, open_cases FROM volunteers")}
    assert {id_ for id_, taken in places.items() if taken} == {winner}
    assert sum(places.values()) == 1
    assert await feed_of(db, case) == [(1, "searching"), (2, "offered"), (3, "accepted")]


@pytest.mark.parametrize("point", ["assignment.in_the_sweep", "assignment.in_an_answer"])
async def test_assignment_killed_in_the_middle_of_the_loop_goes_on_and_breaks_nothing(
    tmp_path: Path, point: str
) -> None:
    marker = tmp_path / "killed"
    result = await play(
        Show(answers="mixed", answer_s=1.2, limit=6),
        command=crashing("assignment", point, marker),
        environment=SHORT_LEASE,
    )
    assert marker.exists(), "the service never came to the point where it was to die"
    assert result.restarts == 1
    nothing_is_lost(result)
    assert result.accepted > 0
