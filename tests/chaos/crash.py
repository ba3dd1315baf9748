"""Runs a service that ends with SIGKILL at a chosen line, once; then it is the real service.

    python -m tests.chaos.crash SERVICE POINT MARKER

Production code has no switches for faults: here a function of it is wrapped before it starts. The
file MARKER is written before the kill, so that the process that takes its place lives on.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faststream.kafka.message

from shared import outbox
from shared.database import sql
from shared.service import serve


def _kill_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_before(module: Any, name: str, marker: Path) -> None:
    original: Callable[..., Any] = getattr(module, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _kill_once(marker)
        return original(*args, **kwargs)

    setattr(module, name, wrapped)


def _kill_after(module: Any, name: str, marker: Path) -> None:
    original: Callable[..., Any] = getattr(module, name)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        if result is None or result:  # an empty sweep is no point at which anything could be lost
            _kill_once(marker)
        return result

    setattr(module, name, wrapped)


def _kill_when_queued(delivery: Any, marker: Path) -> None:
    original = delivery._take

    async def wrapped(self: Any, limit: int) -> Any:
        if await self.database.statement(sql("SELECT FROM messages WHERE state = 'queued'")):
            _kill_once(marker)
        return await original(self, limit)

    delivery._take = wrapped


def arm(point: str, marker: Path) -> None:
    """Let the process die at a point.

    Raises:
        KeyError: there is no such point.
    """
    from services.assignment import answers, loop
    from services.intake import api
    from services.notification import delivery
    from services.notification.channels import sandbox, sms

    class DyingReceipt(api.Receipt):
        def __init__(self, **values: Any) -> None:
            _kill_once(marker)
            super().__init__(**values)

    message = faststream.kafka.message.KafkaAckableMessage
    points: dict[str, Callable[[], None]] = {
        # The report is stored; the reporter has no answer yet.
        "intake.after_commit": lambda: setattr(api, "Receipt", DyingReceipt),
        # Kafka has the events; the outbox does not know.
        "relay.after_publish": lambda: _kill_before(outbox, "mark_published", marker),
        # The effect is stored; Kafka will deliver the events again.
        "consumer.before_offset": lambda: _kill_before(message, "ack", marker),
        # Volunteers are claimed and offers made, nothing of it committed.
        "assignment.before_commit": lambda: _kill_after(loop, "open_cases", marker),
        # Deadlines have passed and others are asked, nothing of it committed.
        "assignment.in_the_sweep": lambda: _kill_after(loop, "sweep", marker),
        # An answer has taken effect, nothing of it committed.
        "assignment.in_an_answer": lambda: _kill_after(answers, "take_answers", marker),
        # The message is stored; nothing has been done about it.
        "notification.before_sending": lambda: _kill_when_queued(delivery.Delivery, marker),
        # The attempt is stored as sending; the provider has not been called.
        "notification.before_provider": lambda: _kill_before(delivery.Delivery, "_call", marker),
        # The provider has the message; we have not stored that.
        "notification.after_provider": lambda: _kill_after(sandbox.Sandbox, "send", marker),
        "notification.after_gateway": lambda: _kill_after(sms.Sms, "send", marker),
        # All is stored; the next thing is not begun.
        "notification.after_sent": lambda: _kill_after(delivery.Delivery, "_settle", marker),
    }
    points[point]()


if __name__ == "__main__":
    _, service, point, marker = sys.argv
    arm(point, Path(marker))
    raise SystemExit(serve(importlib.import_module(f"services.{service}.app").compose()))
