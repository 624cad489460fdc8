"""The API's description, OpenAPI 3.1, generated from the same tables that the service uses."""

import re
from datetime import date
from functools import cache
from typing import Any

from handlers import PROCESSORS
from service.core.delivery import Endpoint, Processor
from service.reads.catalog import READS
from service.reads.parameters import Parameter
from service.reads.read import Read
from service.reads.restatements import RESTATEMENTS
from service.reads.schemas import SHAPES
from service.web.compare import COMPARE
from service.web.explain import EXPLAIN
from service.web.ledger import LIST_PARAMETERS
from service.web.quarantine import QUARANTINE
from service.web.reads import COMMON, SCOPED

_ABOUT = """Billing webhooks in; recurring revenue, next bills, monthly totals and customers' worth out.

Money is in whole minor units of `currency` (cents; yen have none), and currencies are never added together.
Errors are `application/problem+json` (RFC 9457)."""

_PROBLEMS = {
    400: "A parameter is not known or can't be used; `detail` names it",
    401: "A read key is set, and the request carries none that is known",
    404: "There is no such thing",
    503: "A store can't be read now or not in time, or too many reads are under way; see `Retry-After`",
    504: "The books did not reach `at_least` within `timeout_ms`",
}
_REFUSED = {
    400: "The signature is missing or wrong, its time is over 300 s from now, or the signed body is not JSON",
    408: "The body took over 5 s to arrive",
    413: "The body is over 1 MiB",
    503: "No secret is set for this processor, the ledger can't commit now or not in time, or too many "
    "webhooks are under way; try again: what was kept all the same is then a duplicate",
}
_HEADERS = {
    503: {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}},
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
}
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": "for `If-None-Match`"}}
_LINK = {
    "Link": {"schema": {"type": "string"}, "description": 'the next page, `rel="next"`, if there is one'}
}

_IN_PATH = {
    "token": "the unguessable token of the callback URL",
    "name": "the in-house biller's name",
    "customer_id": "the customer's id, as the processor gives it",
}


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Daybook", "version": "0.1.0", "description": _ABOUT},
        "security": [{"bearer": []}, {"key": []}],
        "tags": [{"name": name} for name in ("reads", "customers", "ledger", "webhooks", "service")],
        "paths": {
            **{read.path: {"get": _read(read)} for read in (*READS, COMPARE, EXPLAIN, RESTATEMENTS)},
            **_ledger(),
            **_quarantine(),
            **{
                endpoint.path: {"post": _webhook(processor, endpoint)}
                for processor in PROCESSORS
                for endpoint in processor.endpoints
            },
            **_service(),
        },
        "components": {
            "schemas": SHAPES,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a read key"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "a read key"},
            },
        },
    }


def _read(read: Read) -> dict[str, Any]:
    path_parameters = [_in_path(name, _IN_PATH[name]) for name in re.findall("{(.*?)}", read.path)]
    parameters = [*path_parameters, *(_parameter(parameter) for parameter in (*read.parameters, *COMMON))]
    csv = f"`{read.rows}` as CSV, one line each" if read.rows else None
    if csv and read.paged:
        csv += "; all of them without a `limit`"
    problems = tuple(sorted({400, 401, 503, 504, *([404] if path_parameters or read is EXPLAIN else [])}))
    tag = "reads" if read.dated else "customers"
    operation = _operation(tag, read.summary, read.shape, parameters, problems, csv)
    return _with_link(operation) if read.paged else operation


def _with_link(operation: dict[str, Any]) -> dict[str, Any]:
    answer = operation["responses"]["200"]
    return operation | {
        "responses": operation["responses"] | {"200": answer | {"headers": answer["headers"] | _LINK}}
    }


def _ledger() -> dict[str, Any]:
    page = [_parameter(parameter) for parameter in LIST_PARAMETERS]
    scoped = [_parameter(parameter) for parameter in SCOPED]
    position = [_in_path("position", "the event's position in the ledger", {"type": "integer", "minimum": 1})]
    cause = [_in_path("cause", 'a name out of `causes`, such as "stripe:evt_1"')]
    table: dict[str, tuple[str, str, list[dict[str, Any]], tuple[int, ...], str | None]] = {
        "head": ("The last position and the chain's digest there", "LedgerHead", scoped, (), None),
        "events": ("The log, a page at a time", "LedgerEvents", page, (), "`events` as CSV"),
        "events/{position}": (
            "One event with its delivery",
            "Delivery",
            [*position, *scoped],
            (404,),
            None,
        ),
        "causes/{cause}": ("What caused a row, to its bytes", "Delivery", [*cause, *scoped], (404,), None),
    }
    paths = {
        f"/api/v1/ledger/{path}": {
            "get": _operation(
                "ledger", summary, shape, parameters, tuple(sorted({400, 401, 503, 504, *more})), csv
            )
        }
        for path, (summary, shape, parameters, more, csv) in table.items()
    }
    log = paths["/api/v1/ledger/events"]
    return paths | {"/api/v1/ledger/events": {"get": _with_link(log["get"])}}


def _quarantine() -> dict[str, Any]:
    id_parameter = _in_path("id", "its number in quarantine", {"type": "integer", "minimum": 1})
    list_parameters = [_parameter(parameter) for parameter in QUARANTINE]
    scoped = [_parameter(parameter) for parameter in SCOPED]
    summary = "What was proved and could not be recorded, a page at a time"
    problems = (400, 401, 503, 504)
    listing = _operation("ledger", summary, "Quarantine", list_parameters, problems)
    detail = _operation(
        "ledger",
        "One of them with its body",
        "QuarantinedDelivery",
        [id_parameter, *scoped],
        (*problems, 404),
    )
    return {"/api/v1/quarantine": {"get": _with_link(listing)}, "/api/v1/quarantine/{id}": {"get": detail}}


def _service() -> dict[str, Any]:
    """Health, metrics and this description; only the metrics need a key."""
    texts = {
        "/metrics": ("Prometheus metrics", "text/plain"),
        "/docs": ("This description as a page", "text/html"),
    }
    documents = {
        "/openapi.json": ("This description", "application/json"),
        "/schemas/event.json": (
            "The in-house billers' event format, a JSON Schema",
            "application/schema+json",
        ),
    }
    ready = _operation(
        "service",
        "The stores can be read; how far behind each book is, which processor is silent or due again",
        "Ready",
        [],
        (),
    )
    ready["responses"]["503"] = _problem(503, "A store can't be read now, or not in time")
    paths = {"/healthz": _operation("service", "The process is alive", "Alive", [], ()), "/readyz": ready}
    for path, (summary, media_type) in (texts | documents).items():
        kind = "string" if path in texts else "object"
        answer = {"description": summary, "content": _content(media_type, {"type": kind})}
        paths[path] = {"tags": ["service"], "summary": summary, "responses": {"200": answer}}
    for path, operation in paths.items():
        if path == "/metrics":
            operation["responses"]["401"] = _problem(401, _PROBLEMS[401])
        else:
            operation["security"] = []
    return {path: {"get": operation} for path, operation in paths.items()}


def _webhook(processor: Processor, endpoint: Endpoint) -> dict[str, Any]:
    variables = re.findall("{(.*?)}", endpoint.path)
    parameters = [
        *(_in_path(name, _IN_PATH[name]) for name in variables),
        *(
            {
                "name": header.name,
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": header.description,
            }
            for header in endpoint.headers
        ),
    ]
    return {
        "tags": ["webhooks"],
        "summary": f"A webhook of {processor.name}"
        + (f", by {variables[0]} in its path" if variables else ""),
        "description": "200 is said only after the event is on disk; the same event again is a duplicate.",
        "security": [],
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "description": f"{processor.posts}; at most 1 MiB",
            "content": _content("application/json", {"type": "object"}),
        },
        "responses": {
            "200": {"description": "It is kept", "content": _content("application/json", _ref("Received"))},
            **{str(code): _problem(code, text) for code, text in _REFUSED.items()},
        },
    }


def _operation(
    tag: str,
    summary: str,
    shape: str,
    parameters: list[dict[str, Any]],
    problems: tuple[int, ...],
    csv: str | None = None,
) -> dict[str, Any]:
    content = _content("application/json", _ref(shape))
    if csv:
        content |= _content("text/csv", {"type": "string", "description": csv})
    answer: dict[str, Any] = {"description": summary, "content": content}
    responses = {"200": answer, **{str(code): _problem(code, _PROBLEMS[code]) for code in problems}}
    if tag != "service":
        answer["headers"] = _ETAG
        responses["304"] = {"description": "The caller has it already (`If-None-Match`)"}
    return {"tags": [tag], "summary": summary, "parameters": parameters, "responses": responses}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    """A query parameter; its default where that is the same on every day."""
    default, default_elsewhen = (parameter.default(day) for day in (date(2001, 2, 3), date(2004, 5, 6)))
    schema_default = {"default": default} if default is not None and default == default_elsewhen else {}
    list_style = {"style": "form", "explode": False} if parameter.schema["type"] == "array" else {}
    return {
        "name": parameter.name,
        "in": "query",
        "schema": parameter.schema | schema_default,
        **list_style,
        "description": parameter.description,
    }


def _in_path(name: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = schema or {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def _problem(code: int, text: str) -> dict[str, Any]:
    answer = {"description": text, "content": _content("application/problem+json", _ref("Problem"))}
    return answer | ({"headers": _HEADERS[code]} if code in _HEADERS else {})


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _ref(shape: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{shape}"}
