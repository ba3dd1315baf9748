"""``jangkau-health``: asks the service in this container whether it makes progress.

Only the standard library: a health check runs every few seconds in every container, and loading
the whole command line for it would cost more than the service itself does when idle.
"""

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Ask ``/health/live`` of the given address, by default this container's; 0 if all is well."""
    port = os.environ.get("JANGKAU_PORT", "8000")
    base = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{port}"
    if not base.startswith(("http://", "https://")):
        print("usage: jangkau-health [http://HOST:PORT]", file=sys.stderr)
        return 2
    try:
        with urllib.request.urlopen(f"{base}/health/live", timeout=5) as answer:  # noqa: S310
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.read().decode(), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{base} does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
