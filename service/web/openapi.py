"""The API's description, OpenAPI 3.1, from the types of answers and the tables that the service uses."""

import re
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from msgspec import Struct, json

from handlers import PROCESSORS
from service.core.delivery import Endpoint, Processor
from service.core.scopes import METRICS
from service.reads.answers import CustomerMeta, Freshness, IntervalName, LinkName, Meta, TrustLevel
from service.reads.catalog import READS
from service.reads.compare import COMPARE
from service.reads.customers.classes import Activity, Lifecycle, SegmentName
from service.reads.customers.lists import Stage
from service.reads.customers.revenue import PeriodName
from service.reads.explain.figures import EXPLAIN
from service.reads.files import MEDIA_TYPES, FileFormat
from service.reads.parameters import LOOK_BACK, Parameter
from service.reads.read import Read
from service.reads.restatements import RESTATEMENTS
from service.web import ledger, quarantine
from service.web.health import Alive, Ready
from service.web.problems import Problem
from service.web.reads import COMMON, JSON, common_parameters
from service.web.webhooks import Received

ALL_READS = (
    *READS,
    COMPARE,
    EXPLAIN,
    RESTATEMENTS,
    *(ledger.HEAD, ledger.EVENTS, ledger.EVENT, ledger.CAUSE),
    *(quarantine.QUARANTINE, quarantine.DELIVERY),
)

_ABOUT = """Billing webhooks in; recurring revenue, next bills, monthly totals and customers' worth out.

Money is in whole minor units of `currency` (cents; yen have none), and currencies are never added together.
Errors are `application/problem+json` (RFC 9457).

Once keys are set, each request needs one with certain scopes: `figures` for every read; `people` for raw
bodies, and for customers' names and e-mail addresses, which are null without it; `metrics` for the metrics;
`operate` to change something."""

_PROBLEMS = {
    400: "A parameter is not known, can't be used, or asks for too much; `detail` names it",
    401: "Keys are set, and the request carries none that is known",
    403: "The key lacks a scope that this needs, named in `detail`; or a page of another site asks",
    404: "There is no such thing",
    421: "The request's host is not one of those that are served here",
    431: "The head is over 64 KiB, or has over 128 lines",
    410: "It was erased with its customer",
    503: "A store can't be read now or not in time, or too many reads are under way; see `Retry-After`",
    504: "The books did not reach `at_least` within `timeout_ms`",
}
_REFUSED = {
    400: "The signature is missing or wrong, its time is over 300 s from now, or the signed body is not JSON",
    408: "The body took over 5 s to arrive",
    404: "No biller of this name is set",
    413: "The body is over 1 MiB",
    431: "The head is over 64 KiB, or has over 128 lines",
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

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 1}
_IN_PATH = {
    "token": ("the unguessable token of the callback URL", _TEXT),
    "name": ("the in-house biller's name", _TEXT),
    "customer_id": ("the customer's id, as the processor gives it", _TEXT),
    "position": ("the event's position in the ledger", _NUMBER),
    "cause": ('a name out of `causes`, such as "stripe:evt_1"', _TEXT),
    "id": ("its number in quarantine", _NUMBER),
}
_SHARED = {parameter.name: parameter for parameter in (*COMMON, *LOOK_BACK)} | {"format_of_no_list": JSON}
# Words that several fields and parameters choose from: one schema each.
_WORDS: dict[str, tuple[str, Any]] = {
    "Trust": ("how events were proved", TrustLevel),
    "Interval": ("what a schedule counts in", IntervalName),
    "Segment": ("a segment of customers, by total revenue", SegmentName),
    "Activity": ("how active a customer is, by the days since the last order", Activity),
    "Lifecycle": ("a customer's stage, by the days since the first and the last order", Lifecycle),
    "Stage": ("the stage of customers about to go, or gone", Stage),
    "RevenuePeriod": ("which orders count", PeriodName),
    "Link": ("how an invoice and its payments were joined", LinkName),
    "Format": ("JSON, or the list alone as CSV or a workbook", Literal["json", "csv", "xlsx"]),
    "JsonFormat": ("JSON", Literal["json"]),
    "Freshness": ("whether the books hold all of the ledger", Freshness),
}
_NAME_OF_WORDS = {frozenset(get_args(words)): name for name, (_, words) in _WORDS.items()}


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    paths = {
        **{read.path: {"get": _read(read)} for read in ALL_READS},
        **{
            endpoint.path: {"post": _webhook(processor, endpoint)}
            for processor in PROCESSORS
            for endpoint in processor.endpoints
        },
        **_service(),
    }
    examples = json.decode((files("service.web") / "examples.json").read_bytes())
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation["operationId"] = operation_id(method, path)
            if example := examples.get(operation["operationId"]):
                operation["responses"]["200"]["content"]["application/json"]["example"] = example
    return {
        "openapi": "3.1.0",
        "info": {"title": "Daybook", "version": "0.1.0", "description": _ABOUT},
        "tags": [{"name": name} for name in ("reads", "customers", "ledger", "webhooks", "service")],
        "paths": _with_named_words(paths),
        "components": {
            "schemas": schemas(),
            "parameters": _with_named_words(
                {name: _inline_parameter(parameter) for name, parameter in _SHARED.items()}
            ),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a key"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "a key"},
            },
        },
    }


@cache
def schemas() -> dict[str, Any]:
    """The schema of each type of an answer, by its name; that of a read's answer with its `meta`."""
    others: list[type[Struct]] = [Meta, CustomerMeta, ledger.Verification, Received, Alive, Ready, Problem]
    types = [*dict.fromkeys([read.shape for read in ALL_READS]), *others]
    _, components = json.schema_components(types, ref_template="#/components/schemas/{name}")
    for read in ALL_READS:
        schema = components[read.shape.__name__]
        meta = {**_ref(read.meta), "description": "what this answer is made from"}
        schema["properties"] = schema["properties"] | {"meta": meta}
        schema["required"] = [*dict.fromkeys((*schema["required"], "meta"))]
    words = {
        name: {"type": "string", "enum": list(get_args(words)), "title": name, "description": text}
        for name, (text, words) in _WORDS.items()
    }
    named: dict[str, Any] = _with_named_words(components)
    return named | words


def _with_named_words(schema: Any) -> Any:
    """The schema, with a reference wherever it lists words that have a schema of their own."""
    if isinstance(schema, list):
        return [_with_named_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    name = _NAME_OF_WORDS.get(frozenset(map(str, schema.get("enum", ()))))
    if name is None:
        words = {"type": "string"} if "enum" in schema else {}
        return words | {key: _with_named_words(part) for key, part in schema.items()}
    rest = {key: value for key, value in schema.items() if key not in ("type", "enum")}
    return {"$ref": f"#/components/schemas/{name}", **rest}


def operation_id(method: str, path: str) -> str:
    """The name of an operation: "get_mrr_movements", "get_customer_revenue"."""
    if path == "/metrics":
        return "get_prometheus_metrics"  # beside those of recurring revenue
    words = [method]
    for part in re.sub("^/api/(v1|payment/analytics)/", "", path).strip("/").split("/"):
        if not part.startswith("{"):
            words.append(re.sub(r"\W", "_", part))
        elif words[-1].endswith("s"):
            words[-1] = words[-1].removesuffix("s")
        else:
            words.append(f"by_{part.strip('{}')}")
    return "_".join(words)


def _read(read: Read) -> dict[str, Any]:
    path_parameters = _path_parameters(read.path)
    parameters = [*path_parameters, *map(_parameter, (*read.parameters, *common_parameters(read)))]
    answer = {"application/json": {"schema": _ref(read.shape)}}
    if read.has_list:
        answer |= {
            media_type.partition(";")[0]: _file(read, name) for name, media_type in MEDIA_TYPES.items()
        }
    problems = [400, 401, 403, 421, 431, 503, 504]
    problems += [404] if path_parameters or read is EXPLAIN else []
    problems += [410] if read.shape is ledger.DeliveredEvent else []
    return {
        "tags": [_tag(read)],
        "summary": read.summary,
        "security": _keys(read.scopes),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": read.summary,
                "headers": _ETAG | (_LINK if read.page_parameter else {}),
                "content": answer,
            },
            "304": {"description": "The caller has it already (`If-None-Match`)"},
            **{str(code): _problem(code, _PROBLEMS[code]) for code in sorted(problems)},
        },
    }


def _keys(scopes: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """A key in either header, with these scopes."""
    return [{"bearer": list(scopes)}, {"key": list(scopes)}]


def _file(read: Read, file_format: FileFormat) -> dict[str, Any]:
    """The content of a file."""
    whole = "; all of them without a `limit`" if read.page_parameter else ""
    lists = [f"`{read.rows}`"] if read.rows else []
    lists += [f"with `detail={detail}` `{rows}`" for detail, rows in read.rows_of_detail.items()]
    kind = {"csv": "CSV, one line each", "xlsx": "a workbook of Excel, one line each"}[file_format]
    binary = {"contentMediaType": MEDIA_TYPES["xlsx"]} if file_format == "xlsx" else {}
    return {"schema": {"type": "string", "description": f"{', '.join(lists)} as {kind}{whole}", **binary}}


def _tag(read: Read) -> str:
    if not read.dated:
        return "customers"
    return "ledger" if read.path.startswith(("/api/v1/ledger", "/api/v1/quarantine")) else "reads"


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
    ready = _service_operation(
        "The stores can be read; how far behind each book is, which processor is silent or due again", Ready
    )
    ready["responses"]["503"] = _problem(503, "A store can't be read now, or not in time")
    paths = {"/healthz": _service_operation("The process is alive", Alive), "/readyz": ready}
    for path, (summary, media_type) in (texts | documents).items():
        kind = "string" if path in texts else "object"
        answer = {"description": summary, "content": _content(media_type, {"type": kind})}
        paths[path] = {"tags": ["service"], "summary": summary, "responses": {"200": answer}}
    paths["/metrics"]["responses"] |= {str(code): _problem(code, _PROBLEMS[code]) for code in (401, 403, 421)}
    paths["/metrics"]["security"] = _keys((METRICS,))
    return {path: {"get": operation} for path, operation in paths.items()}


def _service_operation(summary: str, shape: type[Struct]) -> dict[str, Any]:
    answer = {"description": summary, "content": _content("application/json", _ref(shape))}
    return {"tags": ["service"], "summary": summary, "responses": {"200": answer}}


def _webhook(processor: Processor, endpoint: Endpoint) -> dict[str, Any]:
    variables = re.findall("{(.*?)}", endpoint.path)
    parameters = [
        *_path_parameters(endpoint.path),
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
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "description": f"{processor.posts}; at most 1 MiB",
            "content": _content("application/json", {"type": "object"}),
        },
        "responses": {
            "200": {"description": "It is kept", "content": _content("application/json", _ref(Received))},
            **{
                str(code): _problem(code, text)
                for code, text in _REFUSED.items()
                if code != 404 or "name" in variables  # which names a biller
            },
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    """A query parameter, or a reference to it where many operations share it."""
    name = next((name for name, shared in _SHARED.items() if shared is parameter), None)
    return {"$ref": f"#/components/parameters/{name}"} if name else _inline_parameter(parameter)


def _inline_parameter(parameter: Parameter) -> dict[str, Any]:
    """A query parameter; its default where that is the same on every day."""
    default, default_elsewhen = (parameter.default(day) for day in (date(2001, 2, 3), date(2004, 5, 6)))
    schema_default = {"default": default} if default is not None and default == default_elsewhen else {}
    list_style = {"style": "form", "explode": False} if parameter.schema["type"] == "array" else {}
    return {
        "name": parameter.name,
        "in": "query",
        **({"required": True} if parameter.required else {}),
        "schema": parameter.schema | schema_default,
        **list_style,
        "description": parameter.description,
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _IN_PATH[name][1],
            "description": _IN_PATH[name][0],
        }
        for name in re.findall("{(.*?)}", path)
    ]


def _problem(code: int, text: str) -> dict[str, Any]:
    answer = {"description": text, "content": _content("application/problem+json", _ref(Problem))}
    return answer | ({"headers": _HEADERS[code]} if code in _HEADERS else {})


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _ref(shape: type[Struct]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}
