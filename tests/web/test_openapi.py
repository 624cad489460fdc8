"""The description is valid, complete and true of the answers."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.routing import Mount, Route

from service.reads.catalog import READS
from service.reads.files import MEDIA_TYPES, columns
from service.reads.read import Read
from service.web.app import create_app
from service.web.openapi import ALL_READS, description, schemas
from service.web.reads import COMMON, common_parameters
from service.worker.trainer import train
from tests.support.openapi import answer_schema, is_described, parameters_of
from tests.support.posted_books import LISTS, path_of, post_everything, some_path
from tests.support.running import NOW, Daybook, running, settings_for
from tests.support.senders import MX, MX_TOKEN, SENDERS, STANDARD, STRIPE, Sender


def options(read: Read, name: str) -> list[str]:
    """What a parameter may be, if the read takes it."""
    schemas = [p.schema for p in read.parameters if p.name == name]
    return [option for schema in schemas for option in schema.get("items", schema)["enum"]]


def test_the_document_is_openapi_3_1() -> None:
    document = description()

    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_route_of_the_app_is_described_and_nothing_else(data_dir: Path) -> None:
    app = create_app(settings_for(data_dir))
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    mounted = [route.path for route in app.routes if isinstance(route, Mount)]

    described = {
        (path, method) for path, operations in description()["paths"].items() for method in operations
    }

    assert described == routes
    assert mounted == ["/docs/assets"]


async def test_the_document_is_served_as_it_is(daybook: Daybook) -> None:
    answer = await daybook.http.get("/openapi.json")

    assert answer.json() == description()


@pytest.mark.parametrize("read", ALL_READS, ids=lambda read: read.name)
def test_every_parameter_of_a_read_is_described(read: Read) -> None:
    stated = parameters_of(description()["paths"][read.path]["get"])

    of_one = [p["name"] for p in stated if p["in"] == "path"]
    asked = [p["name"] for p in stated if p["in"] == "query"]
    assert asked == [p.name for p in (*read.parameters, *common_parameters(read))]
    assert of_one == re.findall("{(.*?)}", read.path)
    assert len(stated) == len(asked) + len(of_one)
    assert all(p["description"] and p["schema"]["type"] for p in stated)
    for parameter in stated:
        listed = parameter["schema"]["type"] == "array"
        assert (parameter.get("explode") is False) == listed  # with commas between


def test_every_operation_has_a_name_and_a_read_says_what_it_refuses() -> None:
    operations = [
        operation for operations in description()["paths"].values() for operation in operations.values()
    ]
    names = [operation["operationId"] for operation in operations]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"(get|post)(_[a-z]+)+", name) for name in names)
    for read in ALL_READS:
        responses = description()["paths"][read.path]["get"]["responses"]
        assert {"400", "401", "403", "421", "503", "504"} <= set(responses)
        assert ("404" in responses) == ("{" in read.path or read.name == "explain")


def test_a_list_can_be_a_file_and_what_is_no_list_can_not() -> None:
    for read in ALL_READS:
        content = description()["paths"][read.path]["get"]["responses"]["200"]["content"]
        (form,) = (p for p in common_parameters(read) if p.name == "format")
        has_list = bool(read.rows or read.rows_of_detail)
        assert ("text/csv" in content) == has_list == ("csv" in form.schema["enum"])
        assert (MEDIA_TYPES["xlsx"] in content) == has_list == ("xlsx" in form.schema["enum"])


@pytest.mark.parametrize(
    "query",
    [
        *({"currency": code} for code in ("us", "u$d", "euro", "")),
        *({"today": day} for day in ("2025-13-01", "1969-12-31", "20250101", "today")),
        *({"at_least": number} for number in ("-1", "x", str(2**62 + 1))),
        *({"timeout_ms": number} for number in ("30001", "1.5")),
        {"format": "xml"},
        *({"known_at": moment} for moment in ("2025-01-01T10:00:00", "yesterday", "2025-00-01")),
        *({"from_": month} for month in ("2025-13", "2025", "1969-12", "2025-1")),
        {"by": "week"},
        {"detail": "all"},
        {"policy": "a\x00b"},
    ],
    ids=str,
)
async def test_the_schemas_refuse_what_the_service_refuses(daybook: Daybook, query: dict[str, str]) -> None:
    await post_everything(daybook)
    path = "/api/v1/mrr/movements"
    ((name, value),) = query.items()

    assert (await daybook.ask(path, **query)).status_code == 400
    (stated,) = (
        p for p in parameters_of(description()["paths"][path]["get"]) if p["name"] == name.rstrip("_")
    )
    assert not Draft202012Validator(stated["schema"]).is_valid(
        int(value) if stated["schema"]["type"] == "integer" and value.lstrip("-").isdigit() else value
    )


def test_the_lists_that_have_pages_name_the_link_to_the_next() -> None:
    linked = [
        path
        for path, operations in description()["paths"].items()
        for operation in operations.values()
        if "Link" in operation["responses"]["200"].get("headers", {})
    ]

    assert sorted(linked) == [
        "/api/payment/analytics/customers/at-risk",
        "/api/payment/analytics/customers/top",
        "/api/v1/contracts",
        "/api/v1/explain",
        "/api/v1/ledger/events",
        "/api/v1/mrr/compare",
        "/api/v1/quarantine",
        "/api/v1/restatements",
    ]


def test_every_field_has_a_description_and_every_amount_its_unit() -> None:
    for name, shape in schemas().items():
        assert shape["description"], name
        for field, schema in shape.get("properties", {}).items():
            assert schema["description"], (name, field)
            if field.endswith("_cents") and "$ref" not in schema:
                assert "minor units of `currency`" in schema["description"], (name, field)


def test_every_shape_is_used() -> None:
    referred = str(description())

    assert [name for name in schemas() if f"#/components/schemas/{name}'" not in referred] == []


@pytest.mark.parametrize("read", READS, ids=lambda read: read.name)
async def test_what_a_read_answers_is_what_is_described(data_dir: Path, demo: Path, read: Read) -> None:
    async with running(data_dir) as daybook:
        empty = await daybook.get(read.path) if read in LISTS else None
        await post_everything(daybook)
        full = await daybook.get(path_of(read, "cust-9"))
        queries: list[dict[str, Any]] = [
            {},
            {"currency": "eur"},
            {"limit": 1},
            *({"by": by} for by in options(read, "by")),
            *({"detail": detail} for detail in options(read, "detail")),
            {"include_predictions": "false"},
            *({"breakdown": breakdown} for breakdown in options(read, "breakdown")),
            *({"stage": stage} for stage in options(read, "stage")),
            {"months": 6},
            {"today": "2020-01-31"},
        ]
        known = {parameter.name for parameter in (*read.parameters, *COMMON)}
        for query in queries:
            if set(query) <= known:
                assert is_described(
                    await daybook.get(path_of(read, "cust-1"), **query), answer_schema(read.path)
                )
        await train(daybook.state.store, NOW.date())
        learnt = await daybook.get(path_of(read, "cust-9"))
    async with running(demo) as daybook:
        of_demo = await daybook.get(await some_path(daybook, read), today="2025-11-13")

    for answer in filter(None, (empty, full, learnt, of_demo)):
        assert is_described(answer, answer_schema(read.path))
    if read.rows:
        assert full[read.rows]
        assert columns(read.shape, read.rows)


async def test_a_field_that_is_not_described_does_not_pass(daybook: Daybook) -> None:
    await post_everything(daybook)
    answer = await daybook.get("/api/v1/contracts")
    broken = copy.deepcopy(answer)
    broken["contracts"][0]["more"] = 1

    assert is_described(answer, "Contracts")
    with pytest.raises(Exception, match="'more' was unexpected"):
        is_described(broken, "Contracts")


async def test_what_the_ledger_answers_is_what_is_described(daybook: Daybook) -> None:
    await post_everything(daybook)
    events = await daybook.get("/api/v1/ledger/events")

    assert is_described(await daybook.get("/api/v1/ledger/head"), answer_schema("/api/v1/ledger/head"))
    assert is_described(events, answer_schema("/api/v1/ledger/events"))
    assert is_described(
        await daybook.get("/api/v1/ledger/events", limit=1), answer_schema("/api/v1/ledger/events")
    )
    for event in events["events"]:
        for path, of in (("events/{position}", event["position"]), ("causes/{cause}", event["cause"])):
            shown = await daybook.get(f"/api/v1/ledger/{path.partition('/')[0]}/{of}")
            assert is_described(shown, answer_schema(f"/api/v1/ledger/{path}"))


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)
async def test_what_a_webhook_answers_is_what_is_described(daybook: Daybook, sender: Sender) -> None:
    described = {
        STRIPE.path: STRIPE.path,
        MX.path: MX.path,
        MX_TOKEN.path: "/webhooks/mxmerchant/{token}",
        STANDARD.path: "/webhooks/standard/{name}",
    }[sender.path]
    for body in (
        sender.event("1", 1),
        sender.event("1", 1),
        sender.event("1", 2),
        sender.unused,
        sender.unreadable,
    ):
        answer = await daybook.post(sender, body, message_id="msg_a" if body != sender.unused else "msg_b")
        assert answer.status_code == 200
        assert is_described(answer.json(), answer_schema(described, "post"))
    headers = {
        p["name"] for p in parameters_of(description()["paths"][described]["post"]) if p["in"] == "header"
    }
    assert headers == set(sender.sign(b"", daybook.clock.now, "msg_a", sender.secret))
    problem = await daybook.post(sender, b"no json")
    assert is_described(problem.json(), answer_schema(described, "post", str(problem.status_code)))


async def test_health_answers_what_is_described(daybook: Daybook) -> None:
    for path in ("/healthz", "/readyz"):
        assert is_described((await daybook.http.get(path)).json(), answer_schema(path))


async def test_every_refusal_of_a_read_is_described(data_dir: Path) -> None:
    keys = "the-only-read-key,the-key-of-metrics:metrics"
    async with running(data_dir, api_keys=keys, allowed_hosts="localhost") as daybook:
        key = {"X-API-Key": "the-only-read-key"}
        for path in (read.path for read in READS):
            for query, headers, status in (
                ("", {}, "401"),
                ("?nothing=1", key, "400"),
                ("", {"X-API-Key": "the-key-of-metrics"}, "403"),
                ("", {**key, "Host": "evil.example"}, "421"),
                ("?at_least=9&timeout_ms=0", key, "504"),
            ):
                answer = await daybook.http.get(path + query, headers=headers)
                assert str(answer.status_code) == status
                assert is_described(answer.json(), answer_schema(path, status=status))


def test_reads_are_under_a_key_and_webhooks_under_their_signature() -> None:
    document = description()

    assert "security" not in document
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            is_open = "security" not in operation
            assert is_open == (not path.startswith("/api/") and path != "/metrics"), path
            assert is_open or {"401", "403"} <= set(operation["responses"])
