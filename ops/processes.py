"""Free ports, and children that do not outlive us. Only the standard library is used."""

import random
import shutil
import socket
from collections.abc import Sequence

# Outside the range from which Linux takes the client's end of a connection (32768-60999): a client
# that keeps trying a dead server's port inside it connects to itself some day, and then holds the
# port when the server wants it back.
PORTS = range(20_000, 32_000)


def free_port(*, preferred: int | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on: the preferred one if it is free.

    Raises:
        RuntimeError: 50 tries found none.
    """
    for port in [*([preferred] if preferred else []), *random.sample(PORTS, 50)]:
        if is_free(port):
            return port
    raise RuntimeError(f"No free port between {PORTS.start} and {PORTS.stop - 1}.")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as candidate:
        # As servers do: connections that have ended but linger do not count.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def ends_with_us(command: Sequence[str], *, signal: str = "KILL") -> list[str]:
    """The command, made to get a signal when our process ends, however it ends.

    prctl(PR_SET_PDEATHSIG) through setpriv of util-linux; where that is missing (macOS) the
    children of a killed parent live on and have to be ended by hand.
    """
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", signal, "--"] if setpriv else []), *command]
