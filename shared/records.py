"""One record as a consumer gets it from Kafka."""

from dataclasses import dataclass
from typing import Any

from shared.dead_letters import DeadLetter
from shared.events import Event
from shared.topics import UndecodableRecord


@dataclass(frozen=True)
class Received:
    """One Kafka record, decoded (``event``) or found undecodable (``problem``)."""

    event: Event[Any] | None
    problem: UndecodableRecord | None
    record_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    payload: bytes | None
    headers: str

    def letter(self, consumer: str, error: BaseException) -> DeadLetter:
        """The dead letter to keep when this record cannot be handled."""
        return DeadLetter(
            consumer=consumer,
            record_id=self.record_id,
            event_id=self.event.id if self.event else None,
            topic=self.topic,
            partition=self.partition,
            record_offset=self.offset,
            key=self.key,
            payload=self.payload,
            headers=self.headers,
            error=as_text(error),
        )


def as_text(error: BaseException) -> str:
    """An error as a dead letter keeps it."""
    # A decoder quotes what it met; PostgreSQL stores no zero byte.
    return f"{type(error).__name__}: {error}".replace("\x00", "\\0")[:2000]
