"""The OpenAPI document of a service tells every answer that a caller can get, and no other.

Routes declare what they refuse for reasons of their own (:func:`shared.errors.refusals`); what
follows from the shape of an operation is added here, so that it cannot be forgotten.
"""

from typing import Any

from fastapi import FastAPI

from shared.errors import PROBLEM_JSON, RESPONSES, refusals

_EVERYWHERE = (
    "Every path answers `OPTIONS` with 204 and the methods that it has in `Allow`, and any other "
    "method with 405, the same `Allow` and problem details."
)
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def install(app: FastAPI) -> None:
    """Let ``app`` serve the completed document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(made())
        schema: dict[str, Any] = app.openapi_schema or {}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    problem = RESPONSES["default"]["content"][PROBLEM_JSON]["schema"]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document["info"]["description"] += f"\n\n{_EVERYWHERE}"
    schemas["Problem"] = {**problem, "description": "Why a request was refused (RFC 9457)"}
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("default", None)
            for status, answer in refusals(*_of_every(operation)).items():
                responses.setdefault(str(status), answer)
            for answer in responses.values():
                if answer.get("content", {}).get(PROBLEM_JSON, {}).get("schema") == problem:
                    answer["content"] = {PROBLEM_JSON: {"schema": _PROBLEM}}
            operation["responses"] = dict(sorted(responses.items()))


def _of_every(operation: dict[str, Any]) -> list[int]:
    """The refusals that an operation has by its shape: a query that is no text, too large a body,
    and the database being away can meet each."""
    parameters = operation.get("parameters", [])
    found = [400, 413, 503]
    if any(parameter["in"] == "path" for parameter in parameters):
        found.append(404)
    if parameters or "requestBody" in operation:
        found.append(422)
    if "requestBody" in operation:
        found.append(415)
    if operation.get("security"):
        found.append(403)
    return found
