"""What every door of every service does, whatever stands behind it.

Each answer tells caches, browsers and other sites to keep their hands off it; OPTIONS and 405 name
the methods that there are; a query that is no text is refused before anything reads it.
"""

from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import HEADERS, Problem

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that there are at the path of this request."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in app.router.routes
        )
    ]


class Doors:
    """The outermost layer of an application; see the module."""

    def __init__(self, app: ASGIApp, service: FastAPI) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] == 405:
                    headers["Allow"] = ", ".join([*methods_of(self.service, scope), "OPTIONS"])
            await send(message)

        answer = self._here(scope)
        await (answer or self.app)(scope, receive, guarded)

    def _here(self, scope: Scope) -> Response | None:
        """The answer to what needs nothing of the service behind; None for all else."""
        if scope["method"] == "OPTIONS":
            methods = methods_of(self.service, scope)
            if not methods:
                return Problem(404, "There is nothing at this address.").response()
            return Response(status_code=204, headers={"Allow": ", ".join([*methods, "OPTIONS"])})
        if not _is_text(scope["query_string"]):
            return Problem(400, "The query is not text: UTF-8, percent-encoded.").response()
        return None


def _is_text(query: bytes) -> bool:
    try:
        return "\x00" not in unquote_to_bytes(query).decode("utf-8")
    except UnicodeDecodeError:
        return False


def install(app: FastAPI) -> None:
    """Put the doors around ``app``; call it after every other middleware."""
    app.add_middleware(Doors, service=app)
