"""What a client gets when something is wrong: RFC 9457 problem details with a plain sentence."""

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.database import DATABASE_ERRORS, brief, is_transient

log = structlog.get_logger("http")

PROBLEM_JSON = "application/problem+json"

# What an answer says if it says nothing else itself. Many hold personal data or a code that opens
# something; none is a document that a browser should run anything of. Pages have a policy of their
# own (shared/pages.py).
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Not acceptable as it is",
    429: "Too many requests",
    503: "Temporarily unavailable",
}


# For the API documents: what every refusal looks like, in place of FastAPI's own description.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused, with a sentence that says why (RFC 9457)",
        "content": {
            PROBLEM_JSON: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "errors": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["field", "message"],
                                "properties": {
                                    "field": {"type": "string"},
                                    "message": {"type": "string"},
                                },
                            },
                        },
                    },
                }
            }
        },
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the API document of one route: the refusals that its callers have to expect."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        described[status] = {**RESPONSES["default"], "description": TITLES[status]}
        if status in COME_AGAIN:
            described[status]["headers"] = {
                "Retry-After": {
                    "description": "in how many seconds to come again",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return described


# With these a client is told when to come again.
COME_AGAIN = (429, 503)


class _Json(JSONResponse):
    """JSON that can also name a field which a caller has made of half a character."""

    def render(self, content: Any) -> bytes:
        """As bytes, with a question mark for what is no character."""
        whole = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return whole.encode("utf-8", "replace")


class Problem(Exception):
    """A request that is refused. ``errors`` are pairs of the field and a sentence about it;
    ``retry_after`` is when it is worth trying again."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[tuple[str, str]] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors or []
        self.retry_after = retry_after or (timedelta(seconds=5) if status == 503 else None)

    def response(self) -> JSONResponse:
        """The answer to the client."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [{"field": field, "message": text} for field, text in self.errors]
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(math.ceil(self.retry_after.total_seconds()), 1))
        return _Json(body, self.status, headers, media_type=PROBLEM_JSON)


# pydantic's words are for programmers; these are for whoever typed the request.
SENTENCES = {
    "missing": "This is required.",
    "extra_forbidden": "There is no such field.",
    "model_attributes_type": "This must be a JSON object.",
    "model_type": "This must be a JSON object.",
    "dict_type": "This must be a JSON object.",
    "string_pattern_mismatch": "This is not written as it should be.",
    "finite_number": "This must be a number.",
}


def _sentence(error: dict[str, Any]) -> tuple[str, str]:
    """A pydantic error as a field and a sentence, without the value: it may be personal."""
    field = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "header"))
    told = SENTENCES.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    told = told[0].upper() + told[1:]
    if field.endswith("email") and error["type"] == "string_pattern_mismatch":
        told = "This is not an e-mail address."
    if field.endswith("idempotency-key") and error["type"] == "string_too_short":
        told = (
            f"This needs at least {error['ctx']['min_length']} characters that nobody can guess, "
            "such as a UUID."
        )
    if field.endswith("latitude") and error["type"] == "less_than_equal":
        told += " (are latitude and longitude swapped?)"
    return field or "body", told if told.endswith(".") else told + "."


async def json_only(content_type: Annotated[str, Header(include_in_schema=False)] = "") -> None:
    """A dependency that refuses a body which does not say that it is JSON."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "Send the body as JSON, with content-type: application/json.")


# Above this no report and no answer is genuine.
BODY_LIMIT = 64 * 1024


def too_large(limit: int) -> Problem:
    """The refusal of a body of more than ``limit`` bytes."""
    return Problem(413, f"The body is too large; {limit // 1024} KiB are allowed.")


class BodyLimit:
    """Refuse a body that is too large, announced or not, as problem details.

    ``limits`` are those of paths that take more, in bytes. FastAPI's own ``max_body_size`` answers
    an announced one in plain text, outside all middleware.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        limit = self.limits.get(scope.get("path", ""), BODY_LIMIT)
        announced = dict(scope.get("headers", ())).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            await too_large(limit).response()(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                # The one error that FastAPI passes on when it meets it while it reads a body.
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)


def install(app: FastAPI, *, body_limits: Mapping[str, int] | None = None) -> None:
    """Let every error of ``app`` become problem details.

    ``body_limits`` are for paths that take larger bodies than others, in bytes.
    """
    limits = body_limits or {}
    app.add_middleware(BodyLimit, limits=limits)

    @app.exception_handler(Problem)
    async def refused(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        broken_json = [e for e in error.errors() if e["type"] == "json_invalid"]
        if broken_json:
            reason = broken_json[0].get("ctx", {}).get("error", "unreadable")
            return Problem(400, f"The body is not valid JSON: {reason}.").response()
        errors = [_sentence(e) for e in error.errors()]
        detail = " ".join(f"{field}: {message}" for field, message in errors[:3])
        return Problem(422, detail, errors=errors).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 413:
            return too_large(limits.get(request.url.path, BODY_LIMIT)).response()
        detail = f"{error.detail}.".replace("..", ".")
        if error.status_code == 400:
            detail = (
                "The body is not valid JSON: it is not UTF-8, or nested or long beyond measure."
            )
        response = Problem(error.status_code, detail).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        answer = Problem(500, "Something is broken on our side. It has been logged.").response()
        # This one is made outside all middleware (shared/doors.py).
        answer.headers.update(HEADERS)
        return answer

    async def away(request: Request, error: Exception) -> Response:
        if not is_transient(error):
            raise error
        # The route, not the path: a path may hold a code or a link that works.
        route = getattr(request.scope.get("route"), "path", None)
        log.warning("request.refused", route=route, error=brief(error))
        return Problem(
            503, "We cannot store anything right now. Please try again in a few seconds."
        ).response()

    for kind in (*DATABASE_ERRORS, OSError):
        app.add_exception_handler(kind, away)
