"""Every broker and subscriber is made by the one helper, with settings that lose nothing.

The defaults of FastStream and aiokafka do lose events; docs/adr/0003 says which and how.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber

import services.assignment.app
import services.intake.app
import services.notification.app
from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared import kafka
from shared.consume import Consumer
from shared.service import Service
from shared.settings import Settings
from tests.servers import PROJECT

COMPOSE: dict[str, Callable[[], Service]] = {
    "intake": lambda: services.intake.app.compose(_settings(IntakeSettings)),
    "assignment": lambda: services.assignment.app.compose(_settings(AssignmentSettings)),
    "notification": lambda: services.notification.app.compose(_settings(NotificationSettings)),
}
READS = {
    "intake": {("intake.public-cases", "public.cases")},
    "assignment": {
        ("assignment.intake-cases", "intake.cases"),
        ("assignment.notification-answers", "notification.answers"),
    },
    "notification": {
        ("notification.intake-cases", "intake.cases"),
        ("notification.assignment-offers", "assignment.offers"),
    },
}
every_service = pytest.mark.parametrize("name", sorted(COMPOSE))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "JANGKAU_KAFKA_IDEMPOTENCE"):
        monkeypatch.delenv(name, raising=False)


def _settings(kind: Any) -> Any:
    return kind(districts=str(PROJECT / "districts"), topic_prefix="t.")


async def _brokers(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[KafkaBroker]:
    """The brokers that the service makes as it starts, and never connected."""
    made: list[KafkaBroker] = []
    helper = kafka.make_broker

    def remember(settings: Settings, *, client_id: str) -> KafkaBroker:
        broker = helper(settings, client_id=client_id)
        made.append(broker)
        return broker

    async def do_not_connect(broker: KafkaBroker) -> None:
        return None

    monkeypatch.setattr(kafka, "make_broker", remember)
    monkeypatch.setattr(KafkaBroker, "start", do_not_connect)
    monkeypatch.setattr(kafka, "_wait_inside_the_poll", lambda client, consumer: None)
    await service._subscriptions._start()
    await service._publisher._connected()
    return made


@every_service
async def test_every_producer_acknowledges_only_what_is_safe(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE[name]()
    brokers = await _brokers(service, monkeypatch)
    assert len(brokers) == 2  # one for the consumers, one for the relay
    for broker in brokers:
        told = broker._connection_kwargs
        assert told["acks"] == "all"
        assert told["enable_idempotence"] is True
        assert told["linger_ms"] == 0
    await _closed(service)


@every_service
async def test_every_subscriber_commits_only_what_has_been_handled(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE[name]()
    brokers = await _brokers(service, monkeypatch)
    subscribers: list[Any] = [s for broker in brokers for s in broker.subscribers]
    assert {(s.group_id, s.topic_names[0]) for s in subscribers} == {
        (f"t.{group}", f"t.{topic}") for group, topic in READS[name]
    }
    for subscriber in subscribers:
        # A batch subscriber has no workers at all: max_workers closes consumers too early.
        assert isinstance(subscriber, BatchSubscriber)
        assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
        told = subscriber._connection_args
        assert told["auto_offset_reset"] == "earliest"
        assert told["enable_auto_commit"] is False
        assert subscriber.max_records == Settings().batch_size
        assert isinstance(subscriber._listener, Consumer)
    await _closed(service)


@every_service
async def test_nothing_publishes_outside_the_outbox(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE[name]()
    assert not any(list(b.publishers) for b in await _brokers(service, monkeypatch))
    await _closed(service)


async def _closed(service: Service) -> None:
    for close in service.closing:
        await close()
    await service.database.close()


MADE_BY_THE_HELPER = {"KafkaBroker", "AIOKafkaProducer", "subscriber", "publisher"}


def test_no_other_module_makes_a_broker_or_a_subscriber() -> None:
    found = set()
    for folder in ("services", "shared"):
        for file in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _called(node) in MADE_BY_THE_HELPER:
                    found.add(str(file.relative_to(PROJECT)))
    assert found == {str(Path("shared") / "kafka.py")}


def _called(call: ast.Call) -> str:
    function = call.func
    return getattr(function, "id", "") or getattr(function, "attr", "")


async def test_idempotence_can_be_turned_off_for_the_embedded_broker_only_by_saying_so() -> None:
    assert Settings().kafka_idempotence is True
    broker = kafka.make_broker(Settings(kafka_idempotence=False), client_id="x")
    assert broker._connection_kwargs["enable_idempotence"] is False
