"""The topics, declared in code: who writes, who reads, how long it is kept.

One topic per writer, so that the order within a case holds from each writer to each reader.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from shared.events import (
    AnswerJudged,
    CaseEscalated,
    CaseProgressed,
    CaseReported,
    CasesHeld,
    DutyAnswered,
    DutyPageAsked,
    Event,
    OfferAnswered,
    OfferAssigned,
    OfferClosed,
    OfferMade,
    OfferUnreachable,
    PingAnswered,
    PingUnreachable,
    PublicCaseAccepted,
    PublicCaseArrived,
    PublicCaseClosed,
    PublicCaseEscalated,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseReopened,
    PublicCaseWaiting,
    SmsBudgetRunLow,
    VolunteerOffDuty,
    VolunteerPinged,
    VolunteerStopped,
)

# Personal data travels only on topics that forget within a week: erasing a person ends everywhere.
WEEK = timedelta(days=7)


class UndecodableRecord(ValueError):
    """A record that is no event of its topic: parked once, never retried."""


@dataclass(frozen=True)
class Topic:
    """A Kafka topic. ``retention`` ``None`` keeps records for good; ``partitions`` bounds how many
    processes of one consumer group share the work."""

    name: str
    written_by: str
    read_by: tuple[str, ...]
    events: tuple[type[Event[Any]], ...]
    retention: timedelta | None
    personal_data: bool
    # For good: with another number a case would go on in another partition, out of order.
    partitions: int = 6

    @cached_property
    def by_type(self) -> dict[str, type[Event[Any]]]:
        """The event class of each CloudEvents type on this topic."""
        return {event.type_name(): event for event in self.events}

    def decode(self, payload: bytes | None) -> Event[Any]:
        """Turn a record's value into an event of this topic.

        Raises:
            UndecodableRecord: not JSON, an unknown type, a missing or wrong field.
        """
        if not payload:
            raise UndecodableRecord("the record has no value")
        try:
            envelope = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise UndecodableRecord(f"not JSON: {error}") from error
        kind = envelope.get("type") if isinstance(envelope, dict) else None
        event_class = self.by_type.get(kind) if isinstance(kind, str) else None
        if event_class is None:
            known = ", ".join(sorted(self.by_type))
            raise UndecodableRecord(f"unknown type {kind!r:.100} on {self.name}; known are {known}")
        try:
            return event_class.model_validate_json(payload)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)[:5]
            )
            raise UndecodableRecord(f"{kind}: {problems}") from error


INTAKE_CASES = Topic(
    "intake.cases",
    written_by="intake",
    read_by=("assignment", "notification"),
    events=(CaseReported,),
    retention=WEEK,
    personal_data=True,
)
ASSIGNMENT_OFFERS = Topic(
    "assignment.offers",
    written_by="assignment",
    read_by=("notification",),
    events=(
        OfferMade,
        OfferAssigned,
        OfferClosed,
        AnswerJudged,
        CaseEscalated,
        CasesHeld,
        CaseProgressed,
        VolunteerPinged,
        DutyAnswered,
    ),
    retention=WEEK,
    personal_data=True,
)
NOTIFICATION_ANSWERS = Topic(
    "notification.answers",
    written_by="notification",
    read_by=("assignment",),
    events=(
        OfferAnswered,
        OfferUnreachable,
        PingAnswered,
        PingUnreachable,
        VolunteerStopped,
        VolunteerOffDuty,
        DutyPageAsked,
        SmsBudgetRunLow,
    ),
    retention=WEEK,
    personal_data=True,
)
PUBLIC_CASES = Topic(
    "public.cases",
    written_by="assignment",
    read_by=("intake", "other agencies"),
    events=(
        PublicCaseOpened,
        PublicCaseOffered,
        PublicCaseWaiting,
        PublicCaseEscalated,
        PublicCaseAccepted,
        PublicCaseArrived,
        PublicCaseReopened,
        PublicCaseClosed,
    ),
    retention=None,
    personal_data=False,
)
ALL = (INTAKE_CASES, ASSIGNMENT_OFFERS, NOTIFICATION_ANSWERS, PUBLIC_CASES)

TOPIC_OF = {event: topic for topic in ALL for event in topic.events}


def group_of(service: str, topic: Topic) -> str:
    """The consumer group, and the key in the inbox, of a service that reads a topic."""
    return f"{service}.{topic.name.replace('.', '-')}"


def named(name: str) -> Topic:
    """The topic of this name.

    Raises:
        KeyError: no topic is declared under it.
    """
    return {topic.name: topic for topic in ALL}[name]
