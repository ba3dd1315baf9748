"""Which errors pass by themselves, and which of these say that the database as a whole is away."""

import errno
import socket
import ssl

import asyncpg
import jinja2
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.database import is_away, is_transient

AWAY = [
    ConnectionRefusedError("nobody listens"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError("gone"),
    OSError(errno.ENETUNREACH, "no route"),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    OSError(errno.EMFILE, "too many open files"),
    # What asyncio says when a name has several addresses and none answers.
    OSError("Multiple exceptions: [Errno 111] ('::1', 1), [Errno 111] ('127.0.0.1', 1)"),
    socket.gaierror(socket.EAI_AGAIN, "name resolution"),
    ssl.SSLError("the other end hung up"),
    PoolTimeoutError("no connection is free"),
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.TooManyConnectionsError("too many"),
    asyncpg.DiskFullError("disk full"),
    asyncpg.AdminShutdownError("shutting down"),
    asyncpg.CannotConnectNowError("starting up"),
    asyncpg.ReadOnlySQLTransactionError("a standby"),
    asyncpg.InternalClientError("cannot switch to state 11"),
    asyncpg.InterfaceError("connection is closed"),
]
UNLUCKY = [
    TimeoutError("too slow"),
    asyncpg.LockNotAvailableError("held by another"),
    asyncpg.DeadlockDetectedError("met"),
    asyncpg.SerializationError("met"),
    asyncpg.QueryCanceledError("took too long"),
    asyncpg.IdleInTransactionSessionTimeoutError("took too long"),
]
FOR_GOOD = [
    jinja2.TemplateNotFound("offer.id.txt"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "not for us"),
    IsADirectoryError(errno.EISDIR, "a directory"),
    NotADirectoryError(errno.ENOTDIR, "a file"),
    FileExistsError(errno.EEXIST, "there"),
    OSError(errno.EINVAL, "invalid"),
    OSError("of nothing that we know"),
    KeyError("19.05"),
    asyncpg.UniqueViolationError("twice"),
    asyncpg.InterfaceError("the number of arguments"),
]


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("error", AWAY, ids=_name)
def test_what_says_that_a_server_is_away_passes(error: BaseException) -> None:
    assert is_transient(error)
    assert is_away(error)


@pytest.mark.parametrize("error", UNLUCKY, ids=_name)
def test_bad_luck_passes_and_says_nothing_about_the_server(error: BaseException) -> None:
    assert is_transient(error)
    assert not is_away(error)


@pytest.mark.parametrize("error", FOR_GOOD, ids=_name)
def test_what_waiting_does_not_mend_does_not_pass(error: BaseException) -> None:
    assert not is_transient(error)
    assert not is_away(error)
