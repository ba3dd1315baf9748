"""What all commands share: where they write, how they refuse, how they run and end."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)
T = TypeVar("T")
STOPPED = 130  # as a shell counts it: 128 + SIGINT


def fail(message: str, *, code: int = 1) -> "typer.Exit":
    """Say what is wrong; raise the result."""
    err.print(f"[bold red]Error:[/] {message}", highlight=False, soft_wrap=True)
    return typer.Exit(code)


def told(error: Exception) -> str:
    """What is wrong with settings, with the name of each variable."""
    from pydantic import ValidationError

    from shared.settings import PREFIX

    if not isinstance(error, ValidationError):
        return str(error)
    sentences = []
    for problem in error.errors():
        said = str(problem["msg"]).removeprefix("Value error, ")
        name = f"{PREFIX}{'.'.join(map(str, problem['loc']))}".upper()
        sentences.append(said if PREFIX in said or not problem["loc"] else f"{name}: {said}")
    return "; ".join(sentences)


def _quiet_libraries() -> None:
    """aiokafka tells of every failed connection; our own sentences say what matters."""
    import logging

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run until done; Ctrl-C and SIGTERM end it by way of its own clean-up."""
    from aiokafka.errors import KafkaError
    from alembic.util.exc import CommandError
    from pydantic import ValidationError

    from ops.embedded import StackError
    from ops.embedded_postgres import PostgresError
    from ops.synthetic import BrokenReports
    from services.assignment.volunteers import BrokenFile
    from shared.database import DATABASE_ERRORS, brief, is_transient
    from shared.districts import DistrictError
    from shared.settings import CannotStart

    _quiet_libraries()

    async def until_told() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, task.cancel)
        return await task

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        raise typer.Exit(STOPPED) from None
    except (
        BrokenReports,
        BrokenFile,
        StackError,
        PostgresError,
        DistrictError,
        CommandError,
    ) as error:
        raise fail(str(error)) from None
    except (ValidationError, CannotStart) as error:
        raise fail(told(error)) from None
    except (KafkaError, *DATABASE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise fail(f"{error.filename}: {error.strerror}") from None
        if not is_transient(error) and not isinstance(error, KafkaError):
            raise fail(
                f"The database refuses ({brief(error)}): wrong password, no database, or no "
                "tables yet? `jangkau migrate` makes the last two."
            ) from None
        raise fail(
            f"The database or Kafka does not answer ({type(error).__name__}). Is the system up? "
            "Start it with `jangkau up`, or set DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS."
        ) from None
