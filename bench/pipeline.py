"""From the report to the message: latency at a steady rate, throughput at full speed, CPU, memory.

    python -m bench.pipeline --rate 50 --seconds 30 [--reports FILE] [--kafka apache|embedded]

Prints one JSON object. Everything runs on this machine: PostgreSQL, the broker, the three services
and the load. Absolute figures are this machine's; the CPU per 1,000 cases travels better.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from ops import apache_kafka
from ops.demo import Show, demo
from ops.embedded import Stack
from ops.outcome import Result
from shared.settings import SERVICES

# Around the centres of Bangka Tengah, so that matching has real distances to compare.
CENTRES = [(-2.493, 106.408), (-2.17, 106.14), (-2.385, 105.975), (-2.27, 106.06), (-2.30, 106.19)]

# What of a demo's result is told here.
FIGURES = (
    "broker", "reports", "cases", "offers", "messages_sent", "waiting", "lost",
    "report_to_message_ms", "seconds", "cases_per_second", "restarts",
)  # fmt: skip


def steady_reports(file: Path, *, rate: float, seconds: float, seed: int = 1) -> None:
    """Write reports that come at random moments, ``rate`` a second on average (Poisson)."""
    rng = random.Random(seed)
    moment, at = datetime(2026, 1, 1, tzinfo=UTC), 0.0
    with file.open("w", encoding="utf-8") as out:
        out.write("reported_at,latitude,longitude,type,channel,area\n")
        while at < seconds:
            at += rng.expovariate(rate)
            area = rng.randrange(len(CENTRES))
            latitude = CENTRES[area][0] + rng.uniform(-0.05, 0.05)
            longitude = CENTRES[area][1] + rng.uniform(-0.05, 0.05)
            stamp = (moment + timedelta(seconds=at)).isoformat()
            out.write(f"{stamp},{latitude:.5f},{longitude:.5f},homeless,bench,Area {area}\n")


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """CPU that each process of the stack has used so far, in seconds."""
    used = {}
    for name, process in stack.processes.items():
        times = psutil.Process(process.pid).cpu_times()
        used[name] = times.user + times.system
    return used


def resident_mb(stack: Stack) -> dict[str, float]:
    """Resident memory of each process in MB; PostgreSQL's as proportional share (pages shared)."""
    sizes = {
        name: psutil.Process(process.pid).memory_info().rss / 1e6
        for name, process in stack.processes.items()
    }
    postgres = [
        child
        for child in psutil.Process(os.getpid()).children(recursive=True)
        if child.name() == "postgres"
    ]
    if postgres:
        sizes["postgres"] = sum(_proportional_share(child) for child in postgres) / 1e6
    return {name: round(size, 1) for name, size in sizes.items()}


def _proportional_share(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0.0  # a connection that has just been closed


@contextmanager
def broker(kind: str) -> Iterator[None]:
    """Real Apache Kafka for the block, or the embedded broker that the stack starts itself."""
    if kind == "embedded" or "KAFKA_BOOTSTRAP_SERVERS" in os.environ:
        with nullcontext():
            yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder,
        apache_kafka.running(Path(folder)) as kafka,
    ):
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
        try:
            yield
        finally:
            del os.environ["KAFKA_BOOTSTRAP_SERVERS"]


async def measured(reports: Path, *, speed: float | None) -> dict[str, Any]:
    """Play the reports once; the demo's result with CPU and memory."""
    found: dict[str, Any] = {}
    stacks: list[Stack] = []
    before: dict[str, float] = {}

    started = time.monotonic()

    async def note(stack: Stack) -> None:
        found["ready_after_s"] = round(time.monotonic() - started, 1)
        stacks.append(stack)
        before.update(cpu_seconds(stack))

    def watch(progress: Any) -> None:
        if stacks and progress.accepted:
            found["after"] = cpu_seconds(stacks[0])
            # Reading the kernel's page tables costs CPU that the services want.
            if time.monotonic() - found.get("memory_at", 0) > 5:
                found["memory"], found["memory_at"] = resident_mb(stacks[0]), time.monotonic()

    result: Result = await demo(
        Show(reports_file=reports, speed=speed),
        output=lambda s, line: None,
        watch=watch,
        interfere=note,
    )
    thousand = result.cases / 1000
    return {
        **{k: v for k, v in asdict(result).items() if k in FIGURES},
        "cpu_seconds_per_1000_cases": {
            name: round((found["after"][name] - before[name]) / thousand, 2) for name in SERVICES
        },
        "resident_mb": found["memory"] | {"all": round(sum(found["memory"].values()), 1)},
        "ready_after_s": found["ready_after_s"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50, help="reports a second")
    parser.add_argument("--seconds", type=float, default=30, help="how long")
    parser.add_argument("--reports", type=Path, help="a file to replay at full speed as well")
    parser.add_argument("--kafka", choices=["apache", "embedded"], default="apache")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"kafka": arguments.kafka, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, broker(arguments.kafka):
        steady = Path(folder) / "steady.csv"
        steady_reports(steady, rate=arguments.rate, seconds=arguments.seconds)
        figures["steady"] = asyncio.run(measured(steady, speed=1))
        if arguments.reports:
            figures["full_speed"] = asyncio.run(measured(arguments.reports, speed=None))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
