"""Scopes of keys: what each path answers to each key, and that no name comes back without `people`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import inspect

from service.core.scopes import PEOPLE
from service.reads.explain.figures import EXPLAINABLE
from service.reads.personal import is_personal
from service.reads.read import Read
from service.reads.snapshots import precompute
from service.web.openapi import ALL_READS, description
from tests.conftest import BOARD
from tests.support.posted_books import EMAIL, NAME, post_everything
from tests.support.running import Daybook, running
from tests.support.senders import STRIPE, stripe_event, subscription

# A key of each scope, of two, and one whose scopes are not named; "none" is no key.
KEYS = {
    "none": "",
    "f": "the-key-for-figures",
    "p": "the-key-for-people",
    "f+p": "the-key-for-both",
    "m": "the-key-for-metrics",
    "o": "the-key-for-operate",
    "any": "the-key-for-default",
}
SETTING = (
    "the-key-for-figures:figures,the-key-for-people:people,the-key-for-both:figures+people,the-key-for-metrics:metrics,"
    "the-key-for-operate:operate,the-key-for-default"
)
AT = "2025-11-13T09:00:00Z"
RULEBOOK = f"""
{BOARD}
[[opportunities]]
rule = "call"
kind = "offer"
text = "Call {{customer}}."
"""

# The status of each path for each key; of answers with names for some keys, whether they are there or null.
TABLE = """
                                                             none f    p    f+p  m    o    any
/api/payment/analytics/customers/top                         401  null 403  name 403  403  name
/api/payment/analytics/customers/at-risk                     401  null 403  name 403  403  name
/api/payment/analytics/cohorts                               401  200  403  200  403  403  200
/api/payment/analytics/distribution                          401  200  403  200  403  403  200
/api/payment/analytics/purchase-frequency                    401  200  403  200  403  403  200
/api/payment/analytics/dashboard                             401  null 403  name 403  403  name
/api/payment/analytics/predictions/backtest                  401  200  403  200  403  403  200
/api/payment/analytics/customers/{customer_id}/revenue       401  null 403  name 403  403  name
/api/payment/analytics/customers/{customer_id}/forecast      401  null 403  name 403  403  name
/api/payment/analytics/customers/{customer_id}/opportunities 401  null 403  name 403  403  name
/api/v1/revenue/current-month                                401  200  403  200  403  403  200
/api/v1/revenue/month-detail                                 401  null 403  name 403  403  name
/api/v1/revenue/quarterly-forecast                           401  200  403  200  403  403  200
/api/v1/revenue/annual-forecast                              401  200  403  200  403  403  200
/api/v1/revenue/monthly-totals                               401  null 403  name 403  403  name
/api/v1/mrr                                                  401  200  403  200  403  403  200
/api/v1/mrr/movements                                        401  null 403  name 403  403  name
/api/v1/metrics                                              401  200  403  200  403  403  200
/api/v1/upcoming                                             401  null 403  name 403  403  name
/api/v1/contracts                                            401  null 403  name 403  403  name
/api/v1/mrr/compare                                          401  null 403  name 403  403  name
/api/v1/explain                                              401  null 403  name 403  403  name
/api/v1/restatements                                         401  200  403  200  403  403  200
/api/v1/ledger/head                                          401  200  403  200  403  403  200
/api/v1/ledger/events                                        401  null 403  name 403  403  name
/api/v1/ledger/events/{position}                             401  403  403  name 403  403  name
/api/v1/ledger/causes/{cause}                                401  403  403  name 403  403  name
/api/v1/quarantine                                           401  200  403  200  403  403  200
/api/v1/quarantine/{id}                                      401  403  403  name 403  403  name
POST /webhooks/stripe                                        400  400  400  400  400  400  400
POST /webhooks/mxmerchant                                    400  400  400  400  400  400  400
POST /webhooks/mxmerchant/{token}                            400  400  400  400  400  400  400
POST /webhooks/standard/{name}                               400  400  400  400  400  400  400
/healthz                                                     200  200  200  200  200  200  200
/readyz                                                      200  200  200  200  200  200  200
/metrics                                                     401  403  403  403  200  403  200
/docs                                                        200  200  200  200  200  200  200
/openapi.json                                                200  200  200  200  200  200  200
/schemas/event.json                                          200  200  200  200  200  200  200
"""
# With these parameters the answers hold what they hold of customers.
QUERIES = {
    "/api/v1/explain": {"figure": "month-detail/payments/0/amount_cents"},
    "/api/v1/mrr/compare": {"policies": "default,board"},
    "/api/v1/mrr/movements": {"detail": "customers"},
    "/api/v1/revenue/monthly-totals": {"detail": "cash"},
}
IN_PATH = {
    "customer_id": "cust-1",
    "cause": "standard.acme:of-cust-1",
    "id": "2",
    "token": "t",
    "name": "acme",
}


@pytest.fixture
async def daybook(data_dir: Path, tmp_path: Path) -> AsyncIterator[Daybook]:
    """One of everything, in quarantine, too, under keys of each scope. Every customer is called `NAME`."""
    rulebook = tmp_path / "rulebook.toml"
    rulebook.write_text(RULEBOOK)
    async with running(data_dir, api_keys=SETTING, rulebook=rulebook) as started:
        await post_everything(started)
        for customer in ("cust-1", "cust-9"):
            person = {"customer_id": customer, "name": NAME, "email": EMAIL}
            await started.record("customer.recorded", AT, message_id=f"of-{customer}", **person)
        trial = {"customer_id": "cust-9", "status": "trialing", "next_bill_at": "2025-11-20T12:00:00Z"}
        await started.record("subscription.recorded", AT, **{**subscription("9", 500), **trial})
        for name in (NAME, f"{NAME} II"):  # unreadable, and a conflict
            await started.post(STRIPE, stripe_event("customer.created", {"id": 7, "name": name}))
        await started.catch_up()
        yield started


async def ask(daybook: Daybook, key: str, path: str, method: str = "get", **query: Any) -> httpx.Response:
    return await daybook.http.request(method, path, params=query, headers={"X-API-Key": KEYS[key]})


def shows_a_name(answer: httpx.Response) -> bool:
    """Whether an answer of the API holds a name; the description holds some in its examples."""
    return answer.url.path.startswith("/api/") and any(
        text in answer.text or text in str(answer.headers) for text in (NAME, EMAIL)
    )


async def test_each_path_answers_each_key_as_the_table_says(daybook: Daybook) -> None:
    in_path = {**IN_PATH, "position": await daybook.head() - 2}
    table = [f"{'':61}{''.join(map('{:5}'.format, KEYS))}".rstrip()]
    for path, operations in description()["paths"].items():
        for method in operations:
            asked = path.format(**in_path), method
            row = [await ask(daybook, key, *asked, **QUERIES.get(path, {})) for key in KEYS]
            label = path if method == "get" else f"{method.upper()} {path}"
            table.append(f"{label:61}{''.join(map('{:5}'.format, cells(row)))}".rstrip())

    assert "\n".join(table) == TABLE.strip("\n")


def cells(row: list[httpx.Response]) -> list[str]:
    """The status of each answer; of answers that may hold a name, whether they do."""
    named = [shows_a_name(answer) for answer in row]
    words = {True: "name", False: "null" if any(named) else "200"}
    return [
        words[has_name] if answer.status_code == 200 else str(answer.status_code)
        for answer, has_name in zip(row, named, strict=True)
    ]


def queries(read: Read) -> Iterator[dict[str, str]]:
    """Everything that a read can be asked for by words, a word at a time; of `explain` each list's figure."""
    base = QUERIES.get(read.path, {})
    yield base
    for parameter in read.parameters:
        schema = parameter.schema.get("items", parameter.schema)
        words = ("true", "false") if schema["type"] == "boolean" else schema.get("enum", ())
        yield from (base | {parameter.name: word} for word in words)
    for name, explainable in EXPLAINABLE.items() if read.name == "explain" else ():
        customer = {"customer_id": "cust-1"} if "{customer_id}" in explainable.path else {}
        one_of_each_list = {pattern.rpartition("/")[0]: pattern for pattern in explainable.figures}
        for pattern in one_of_each_list.values():
            yield {"figure": f"{name}/{pattern.replace('*', '0')}", **customer}


async def test_no_read_gives_a_name_without_the_scope_whatever_it_is_asked(daybook: Daybook) -> None:
    in_path = {**IN_PATH, "position": await daybook.head() - 2}
    reads_with_names = set()
    for read in ALL_READS:
        path = read.path.format(**in_path)
        for query in queries(read):
            for form in ("json", "csv") if read.rows else ("json",):
                answer = await ask(daybook, "f", path, format=form, **query)
                assert answer.status_code in (200, 403, 404), answer.text
                assert not shows_a_name(answer), (path, query)
                if read.name not in reads_with_names and shows_a_name(
                    await ask(daybook, "f+p", path, format=form, **query)
                ):
                    reads_with_names.add(read.name)

    stated = {read.name for read in ALL_READS if is_personal(read.shape) or PEOPLE in read.scopes}
    assert reads_with_names == stated | {"explain"}  # which shows the texts beside a figure


def personal_types(kind: Any, *, listed: bool = True) -> Iterator[inspect.Type]:
    """The types of personal fields within a type; `listed`: within structs, lists and unions only."""
    if isinstance(kind, inspect.Metadata) and (kind.extra or {}).get("personal"):
        assert listed, "only structs, lists and unions are looked into"
        yield kind.type
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            is_marked = bool(list(personal_types(field.type)))
            assert is_marked or field.name not in ("name", "email", "customer_name", "customer_email")
            yield from personal_types(field.type, listed=listed)
    else:
        is_known = isinstance(kind, inspect.Metadata | inspect.ListType | inspect.UnionType)
        for part in (getattr(kind, name) for name in getattr(kind, "__struct_fields__", ())):
            for each in part if isinstance(part, tuple) else (part,):
                if isinstance(each, inspect.Type):
                    yield from personal_types(each, listed=listed and is_known)


@pytest.mark.parametrize("read", ALL_READS, ids=lambda read: read.name)
def test_every_name_in_an_answer_is_marked_and_may_be_null(read: Read) -> None:
    found = list(personal_types(inspect.type_info(read.shape)))

    assert all(isinstance(kind, inspect.UnionType) and kind.includes_none for kind in found)


async def test_without_names_lists_go_by_id_as_if_there_were_none(daybook: Daybook) -> None:
    contract = {"next_bill_at": "2025-11-21T12:00:00Z"}
    for key, name in (("x", "Zoe"), ("y", "Ada")):
        await daybook.record("customer.recorded", AT, customer_id=f"cust-{key}", name=name)
        await daybook.record("subscription.recorded", AT, **subscription(key, 500, **contract))
    await daybook.catch_up()

    for path, rows in (
        ("contracts", "contracts"),
        ("upcoming", "payments"),
        ("revenue/month-detail", "payments"),
    ):
        order = {}
        for key in ("f+p", "f"):
            listed = (await ask(daybook, key, f"/api/v1/{path}")).json()[rows]
            of_both = [row["customer_id"] for row in listed if row["customer_id"] in ("cust-x", "cust-y")]
            order[key] = of_both
        assert order == {"f+p": ["cust-y", "cust-x"], "f": ["cust-x", "cust-y"]}
    days = (await ask(daybook, "f", "/api/v1/upcoming")).json()["days"]
    assert [day["customers"] for day in days if day["billing_date"] == "2025-11-21"] == [["cust-x", "cust-y"]]


async def test_a_figure_is_not_found_by_a_name_that_may_not_be_seen(daybook: Daybook) -> None:
    figure = {"figure": f"month-detail/payments/date=2025-11-20,customer_name={NAME}/amount_cents"}

    assert (await ask(daybook, "f+p", "/api/v1/explain", **figure)).status_code == 200
    assert (await ask(daybook, "f", "/api/v1/explain", **figure)).status_code == 404


async def test_a_tag_of_another_scope_is_no_tag_of_this_answer(daybook: Daybook) -> None:
    for path in ("/api/v1/contracts", "/api/payment/analytics/customers/top", "/api/v1/ledger/events"):
        for given, asking in (("f+p", "f"), ("f", "f+p")):
            tagged = await ask(daybook, given, path)
            headers = {"If-None-Match": tagged.headers["etag"]}
            same = await daybook.http.get(path, headers={**headers, "X-API-Key": KEYS[given]})
            other = await daybook.http.get(path, headers={**headers, "X-API-Key": KEYS[asking]})
            assert (same.status_code, other.status_code) == (304, 200)
            assert {"Authorization", "X-API-Key"} <= set(other.headers["vary"].split(", "))


async def test_answers_that_are_kept_ready_are_kept_for_each_scope(daybook: Daybook) -> None:
    path = "/api/payment/analytics/customers/top"
    made = {key: (await ask(daybook, key, path)).json() for key in ("f+p", "f")}

    assert await precompute(daybook.state.store, daybook.clock.now.date(), daybook.state.options)

    assert {key: (await ask(daybook, key, path)).json() for key in made} == made
    assert made["f+p"] != made["f"]


async def test_a_refusal_names_the_scope_that_is_missing(daybook: Daybook) -> None:
    answer = await ask(daybook, "f", "/api/v1/ledger/events/1")

    assert answer.json() == {
        "type": "urn:daybook:problem:forbidden",
        "title": "The key lacks a scope",
        "status": 403,
        "detail": "the key lacks what this needs: people",
    }


def test_the_description_names_the_scopes_that_each_path_needs() -> None:
    needed = {
        path: tuple(operation["get"]["security"][0]["bearer"])
        for path, operation in description()["paths"].items()
        if "security" in operation.get("get", {})
    }

    assert needed.pop("/metrics") == ("metrics",)
    assert needed == {read.path: read.scopes for read in ALL_READS}
