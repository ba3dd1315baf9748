"""What every service answers to those who run it."""

import asyncio
from datetime import timedelta

from prometheus_client import generate_latest

from shared import instances
from shared.health import Loop
from tests.integration.conftest import Door


async def test_a_service_is_alive_while_its_loops_turn_and_stuck_when_they_do_not(
    door: Door,
) -> None:
    answer = await door.http.get("/health/live")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ok", "problems": [], "notes": []},
    )
    relay = next(loop for loop in door.service.health.loops if loop.name == "relay")
    stopped_at = relay.last_beat
    relay.clock = lambda: stopped_at + 3600
    answer = await door.http.get("/health/live")
    assert answer.status_code == 503
    assert answer.json()["status"] == "stuck"
    assert answer.json()["problems"] == ["relay has not made progress for 3600 s (limit 60 s)"]


async def test_a_consumer_that_has_stopped_makes_its_service_unhealthy(door: Door) -> None:
    consumer = door.service.consumers[0]
    consumer.parked_in_a_row = consumer.max_parked_in_a_row
    answer = await door.http.get("/health/live")
    assert answer.status_code == 503
    assert "records in a row could not be handled" in answer.json()["problems"][0]


async def test_readiness_names_the_consumers_that_have_not_joined(door: Door) -> None:
    answer = await door.http.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["joining"] == [consumer.name for consumer in door.service.consumers]


async def test_a_service_reports_itself_and_its_sizes(door: Door) -> None:
    reporting = asyncio.create_task(door.service._report(Loop("report", timedelta(seconds=30))))
    try:
        async with asyncio.timeout(30):
            while True:
                async with door.database.transaction() as session:
                    found = await instances.alive(session)
                if found:
                    break
                await asyncio.sleep(0.02)
    finally:
        reporting.cancel()
        await asyncio.wait([reporting])
    assert found[0].name.startswith(f"jangkau-{door.service.name}-")
    assert found[0].problems == []
    metrics = generate_latest().decode()
    assert f'jangkau_outbox_unpublished_rows{{service="{door.service.name}"}} 0.0' in metrics
    assert 'jangkau_loop_age_seconds{loop="relay"}' in metrics


async def test_no_page_lets_a_stranger_try_things_out(door: Door) -> None:
    for path in ("/docs", "/redoc"):
        assert (await door.http.get(path)).status_code == 404
    assert (await door.http.get("/openapi.json")).status_code == 200
