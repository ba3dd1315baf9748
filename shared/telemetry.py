"""Logs and metrics. Every metric of the spine is declared here, with what a rise of it means.

No log line, metric name or label holds personal data: ids and codes only.
"""

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

EVENTS_HANDLED = Counter(
    "jangkau_events_handled_total",
    "Events whose effect is committed. Flat while lag rises: the consumer is stuck.",
    ["consumer", "type"],
)
EVENTS_DUPLICATE = Counter(
    "jangkau_events_duplicate_total",
    "Events dropped because they were handled before. Rises after a crash or a rebalance.",
    ["consumer"],
)
EVENTS_PARKED = Counter(
    "jangkau_events_parked_total",
    "Records put into the dead-letter table. Any rise wants a person.",
    ["consumer"],
)
EVENTS_SET_ASIDE = Counter(
    "jangkau_events_set_aside_total",
    "Records set aside, as one of their case cannot go on while others can. A rise wants a look.",
    ["consumer"],
)
SET_ASIDE = Gauge(
    "jangkau_set_aside_records",
    "Records that wait aside now. They are tried again by themselves; above zero for long wants a "
    "person.",
    ["consumer"],
)
BATCH_RETRIES = Counter(
    "jangkau_batch_retries_total",
    "Batches put back because of a transient error. Rises while a database or broker is away.",
    ["consumer"],
)
BATCH_SECONDS = Histogram(
    "jangkau_batch_seconds",
    "Time of one unit of work, from decode to commit. A rise means a slow database.",
    ["consumer"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CONSUMER_LAG = Gauge(
    "jangkau_consumer_lag_events",
    "Events that wait on the partitions of this process. A steady rise: add replicas.",
    ["consumer"],
)
CONSUMER_EVENT_AGE = Gauge(
    "jangkau_consumer_event_age_seconds",
    "Age of the newest event handled last, at the time it was handled. Queueing before us.",
    ["consumer"],
)
OUTBOX_ROWS = Gauge(
    "jangkau_outbox_unpublished_rows",
    "Events that are stored and not yet in Kafka. A rise means that Kafka is away.",
    ["service"],
)
OUTBOX_AGE = Gauge(
    "jangkau_outbox_oldest_age_seconds",
    "Age of the oldest unpublished event. Above a minute somebody should look.",
    ["service"],
)
OUTBOX_PUBLISHED = Counter(
    "jangkau_outbox_published_total",
    "Events acknowledged by Kafka. Flat while the outbox grows: the relay is stuck.",
    ["service"],
)
DEAD_LETTERS = Gauge(
    "jangkau_dead_letters",
    "Parked records that nobody has dealt with yet.",
    ["consumer"],
)
LOOP_AGE = Gauge(
    "jangkau_loop_age_seconds",
    "Time since the loop last turned. Above its limit the process reports itself dead.",
    ["loop"],
)


class _OncePerWhile(logging.Filter):
    """Let a library say the same thing once in ten seconds.

    aiokafka writes hundreds of lines a second while a broker is away.
    """

    def __init__(self, seconds: float = 10) -> None:
        super().__init__()
        self.seconds = seconds
        self._said: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this line."""
        what = (record.name, record.msg)
        last = self._said.get(what)
        if last is not None and record.created - last < self.seconds:
            return False
        if len(self._said) > 500:
            self._said.clear()
        self._said[what] = record.created
        return True


def configure_logging(service: str, *, level: str, json: bool) -> None:
    """Send structlog and the standard library's logs to stderr, one line an event.

    ``json`` is for machines (production), otherwise lines are for people.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso" if json else "%H:%M:%S", utc=json),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=32,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if json else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    once = _OncePerWhile()
    handler.addFilter(lambda record: not record.name.startswith("aiokafka") or once.filter(record))
    root.setLevel(level.upper())
    # The libraries tell of every rebalance and every retry; our own lines say what matters.
    for noisy in ("aiokafka", "faststream", "httpx2", "uvicorn.error", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
