"""Metrics on a port of their own, so that a proxy in front of the service cannot show them.

A thread of its own serves them: they can also be read while the loop of the service is stuck, which
is when they matter most.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from shared.settings import CannotStart


@contextmanager
def serving(host: str, port: int) -> Iterator[int]:
    """Serve all metrics of this process at ``/metrics`` while the block runs; yields the port.

    Raises:
        CannotStart: the port is taken.
    """
    try:
        server, thread = start_http_server(port, addr=host)
    except OSError as error:
        raise CannotStart(
            f"JANGKAU_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
