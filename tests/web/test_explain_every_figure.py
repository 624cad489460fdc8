"""Every number that a read answers is explained, down to bytes whose signatures verify, or says why not."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from sqlalchemy import Connection

from service.books.view import Scope
from service.core.money import round_half_away
from service.intake.provenance import Cause, trace
from service.reads.explain.catalog import EXPLAINABLE
from service.reads.explain.figures import explain
from service.reads.read import Read
from service.web.openapi import ALL_READS
from service.web.reads import open_view
from tests.support.posted_books import DEMO, filled
from tests.support.running import NOW, Daybook, running
from tests.support.stores import NewDataDir
from tests.web.business import post_business, post_history

EXPLAIN = "/api/v1/explain"
RANGE = {"from_": "2025-09", "to": "2025-11"}
# The parameters with which each read is asked, where there are others than none.
QUERIES: dict[str, list[dict[str, Any]]] = {
    "month-detail": [{}, {"year": 2025, "month": 12}],
    "monthly-totals": [{**RANGE, "detail": "cash"}, {"from_": "2025-09-05", "to": "2025-11-10"}],
    "movements": [{**RANGE, "detail": "customers"}],
    "metrics": [RANGE, {**RANGE, "by": "quarter"}],
    "upcoming": [{"from_": "2025-11-01", "to": "2025-12-31", "forecast": "true"}],
    "mrr": [{}, {"policy": "stripe"}],
    "customers-top": [{}, {"today": "2025-06-30"}],
    "customers-at-risk": [{}, {"stage": "churned"}],
    "cohorts": [{}, {"today": "2025-06-30"}],
    "distribution": [{}, {"today": "2025-06-30"}],
    "purchase-frequency": [{}, {"today": "2025-06-30"}],
    "customer-revenue": [
        {"detail": "orders", "breakdown": "monthly,quarterly,by_product"},
        {"period": "last_6_months"},
    ],
}
CUSTOMERS = ("cust-1", "buyer-3", "seasonal", "rising", "cust-h0", "cust-h1")
NAMES = {read.path: name for name, read in EXPLAINABLE.items()}
# Numbers that are no figures, by address: patterns, each with the reason.
NOT_EXPLAINED = {
    r".*/meta/.*": "the state of the books, and counts of what they leave out",
    r".*/(every|week|month|year|rank|months_since)": "names what is counted",
    r"customer-forecast/months": "the parameter",
    r".*/learnt/position": "an identifier",
    r".*/basis/\w+/(n|events)": "the size of a sample of all customers, which is no figure of this one",
    r"backtest/.*": "how good predictions were: figures of the model, not of the books",
    r"compare/.*/reasons/\*/amount_cents": "a part of a difference, by folding the events of its row again",
    r"restatements/.*": "each is the effect of the one event that it names",
    r"(ledger|quarantine)/.*": "positions, numbers and lengths of the deliveries themselves",
}


def average(of: dict[str, Any]) -> int:
    orders = of["terms"].get("total_orders", of["terms"].get("orders"))
    return round_half_away(of["sum"], orders) if orders else 0


def days(of: dict[str, Any]) -> list[date]:
    return [date.fromisoformat(row["date"]) for row in of["rows"]]


def lifespan(of: dict[str, Any]) -> int:
    return (days(of)[-1] - days(of)[0]).days if of["rows"] else 0


def quiet(of: dict[str, Any]) -> int:
    return (of["today"] - days(of)[0]).days


def quotient(digits: int, *names: str) -> Callable[[dict[str, Any]], float | None]:
    """Of the sum, or of a term, by the last of these terms."""

    def divide(of: dict[str, Any]) -> float | None:
        part, whole = of["terms"][names[0]] if names[1:] else of["sum"], of["terms"][names[-1]]
        return round_half_away(part * 10**digits, whole) / 10**digits if whole else None

    return divide


def per(name: str) -> Callable[[dict[str, Any]], int | None]:
    return lambda of: round_half_away(of["sum"], of["terms"][name]) if of["terms"][name] else None


def percentage(of: dict[str, Any]) -> float | None:
    whole = of["terms"].get("total_revenue_cents", of["terms"].get("all_revenue_cents"))
    return round_half_away(10_000 * of["sum"], whole) / 100 if whole else None


def growth(of: dict[str, Any]) -> float:
    now, before = of["terms"]["this_month"], of["terms"]["month_before"]
    return round_half_away(10_000 * (now - before), before) / 10_000


def lifetime_value(of: dict[str, Any]) -> int:
    terms = of["terms"]
    return round_half_away(
        terms["closing_cents"] * terms["months"] * terms["customers"], terms["closing_customers"] * of["sum"]
    )


# What the words of a formula give, of the sum and the terms.
MADE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "arr_cents": lambda of: 12 * of["sum"],
    "arpa_cents": lambda of: per("closing_customers" if "closing_cents" in of["terms"] else "customers")(of),
    "top_share": quotient(4, "total_cents"),
    "avg_order_value_cents": lambda of: (
        average(of) if of["terms"] else round_half_away(of["sum"], of["count"])
    ),
    "percentage_of_total": percentage,
    "days_until_payment": lambda of: (date.fromisoformat(of["of"]["next_bill_date"]) - of["today"]).days,
    "customer_lifespan_days": lifespan,
    "purchase_frequency_days": lambda of: round_half_away(
        of["terms"]["customer_lifespan_days"], of["terms"]["total_orders"]
    ),
    "avg_days_between_purchases": lambda of: round(
        of["terms"]["customer_lifespan_days"] / (of["terms"]["total_orders"] - 1), 2
    ),
    "first_purchase_date": lambda of: days(of)[0].isoformat(),
    "last_purchase_date": lambda of: days(of)[0].isoformat(),
    "next_bill_date": lambda of: days(of)[0].isoformat(),
    "days_since_last_purchase": quiet,
    "days_quiet": quiet,
    "customer_churn_rate": quotient(6, "customers"),
    "gross_mrr_churn_rate": quotient(6, "opening_cents"),
    "net_revenue_retention": quotient(6, "opening_cents"),
    "net_mrr_churn_rate": lambda of: round(1 - of["sum"] / of["terms"]["opening_cents"], 6),
    "quick_ratio": lambda of: round(
        sum(of["terms"][f"{kind}_cents"] for kind in ("new", "reactivation", "expansion"))
        / -(of["terms"]["contraction_cents"] + of["terms"]["churn_cents"]),
        6,
    ),
    "ltv_cents": lifetime_value,
    "failed_payment_rate": quotient(6, "payments"),
    "recovery_rate": quotient(6, "failed_payments"),
    "customer_share": quotient(4, "all_customers"),
    "revenue_share": quotient(4, "all_revenue_cents"),
    "avg_revenue_cents": per("customers"),
    "average_customer_value_cents": per("customers"),
    "rate": quotient(4, "cohort_customers"),
    "retention_rates": quotient(4, "cohort_customers"),
    "avg_revenue_per_customer_cents": per("customers"),
    "avg_customer_value_cents": per("customers"),
    "customer_growth_rate": growth,
    "revenue_growth_rate": growth,
    "growth_rate": lambda of: round(
        of["terms"]["last_month_cents"] / of["terms"]["month_before_cents"] - 1, 4
    ),
    "orders_per_month": lambda of: round(of["sum"] / of["terms"]["months"], 4),
}
KINDS = ("offer", "action")  # of a rulebook's rules
SAID = {"ends_date", "months"}  # formulas that only say in words where the figure is from


@pytest.fixture(scope="module")
def business(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def post(daybook: Daybook) -> None:
        await post_business(daybook)
        await post_history(daybook)

    return filled(new_data_dir(tmp_path_factory.mktemp("business") / "data"), post, NOW)


@pytest.fixture
def rulebook(tmp_path: Path) -> Path:
    """Rules that ask for every number that they may ask for."""
    asked = "when = { orders_at_least = 1, quiet_days_at_least = 0, churn_risk_at_least = 0.0 }"
    rules = (
        f'[[opportunities]]\nrule = "{kind}"\nkind = "{kind}"\ntext = "All"\n{asked}\n' for kind in KINDS
    )
    path = tmp_path / "rulebook.toml"
    path.write_text("".join(rules))
    return path


@pytest.mark.slow
async def test_every_number_is_explained_or_named_with_a_reason(
    demo: Path, business: Path, rulebook: Path
) -> None:
    explained: set[str] = set()
    named: set[str] = set()
    async with running(demo, **DEMO) as daybook:
        await walk(daybook, {"today": "2025-11-30"}, explained, named)
    async with running(business, rulebook=rulebook) as daybook:
        await walk(daybook, {}, explained, named)

    assert named == set(NOT_EXPLAINED)
    assert {f"{name}/{place}" for name, read in EXPLAINABLE.items() for place in read.figures} == explained


async def walk(daybook: Daybook, common: dict[str, Any], explained: set[str], named: set[str]) -> None:
    """Explain every kind of number of every read; note the patterns of those that are explained, or named."""
    verified: set[Cause] = set()
    for read in (read for read in ALL_READS if read.path != EXPLAIN):
        name = NAMES.get(read.path) or read.path.removeprefix("/api/v1/").rpartition("predictions/")[2]
        async for document, query in documents(daybook, read, name, common):
            figures: dict[str, Any] = {}
            for pattern, leaves in kinds_of_leaves(document).items():
                place = place_in_table(name, pattern[1:])
                reason = next((each for each in NOT_EXPLAINED if re.fullmatch(each, name + pattern)), None)
                figure = f"{name}/{place}" if place else name + pattern
                if place:
                    of_first = leaves[:1] if figure in explained else leaves  # one of each answer is enough
                    figures |= {name + pointer: value for pointer, value in of_first}
                    explained.add(figure)
                elif not isinstance(leaves[0][1], str):
                    named.add(reason or figure)
            await check(daybook, figures, query, verified)


async def check(
    daybook: Daybook, figures: dict[str, Any], query: dict[str, Any], verified: set[Cause]
) -> None:
    """Explain the figures of one answer; `verified` are the events whose signatures were checked before."""
    today = date.fromisoformat(query.get("today", NOW.date().isoformat()))
    given = {key.rstrip("_"): str(value) for key, value in query.items() if key != "today"}

    def find(connection: Connection, figure: str) -> dict[str, Any]:
        _, view = open_view(connection, Scope(currency="usd", today=today), daybook.state)
        return dict(to_builtins(explain(view, figure, given, 0, None)[0]))

    for figure, value in figures.items():
        found = await daybook.state.store.read(partial(find, figure=figure))
        assert_made(found | {"today": today}, value)
        causes = {(cause, row["account"]) for row in found["rows"] for cause in row["causes"]}
        assert causes or not value, figure
        async with daybook.state.ledger.reading() as reader:
            events = await trace(reader, causes - verified, daybook.state.settings)
        assert all(event["delivery"]["verified"] is True for event in events), figure
        verified |= causes


def assert_made(found: dict[str, Any], value: Any) -> None:
    figure, formula = found["figure"], found["formula"]
    name = re.sub(r"/\d+$", "", figure).rpartition("/")[2]
    assert found["value"] == value, figure
    assert sum(row["contributes"] for row in found["rows"]) == found["sum"], figure
    if found["adds_up"] is not None:
        assert found["adds_up"] is True, figure
    elif not found["estimate"] and name not in SAID:
        assert MADE[name](found) == value, (figure, formula)


async def documents(
    daybook: Daybook, read: Read, name: str, common: dict[str, Any]
) -> AsyncIterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The read's answers, each with the parameters for `explain`."""
    for query in QUERIES.get(name, [{}]):
        given = query if not name.startswith(("ledger", "quarantine")) else {}
        for path, of in paths(read):
            answer = await daybook.ask(path, **common | given)
            if answer.status_code == 200:
                asked = {key: value for key, value in query.items() if key not in ("detail", "breakdown")}
                yield answer.json(), common | asked | of
            else:
                assert answer.status_code == 404, answer.text


def paths(read: Read) -> list[tuple[str, dict[str, Any]]]:
    """Where the read is, and the customer that it is of."""
    if "{customer_id}" in read.path:
        return [(read.path.replace("{customer_id}", one), {"customer_id": one}) for one in CUSTOMERS]
    return [(re.sub(r"{\w+}", "1", read.path), {})]


def kinds_of_leaves(document: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """Of the numbers and texts of one pattern, as "/days/*/total_cents", the largest, first and last."""
    kinds: dict[str, dict[str, Any]] = defaultdict(dict)
    for pointer, value in leaves_of(document, ""):
        kinds[re.sub(r"/\d+(?=/|$)", "/*", pointer)][pointer] = value
    sampled = {}
    for pattern, leaves in kinds.items():
        first, *_, last = [*leaves.items()] * 2
        sampled[pattern] = list(dict([largest(leaves), first, last]).items())
    return sampled


def largest(leaves: dict[str, Any]) -> tuple[str, Any]:
    return max(leaves.items(), key=lambda leaf: leaf[1] if isinstance(leaf[1], str) else abs(leaf[1]))


def leaves_of(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict | list):
        for name, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from leaves_of(value, f"{path}/{name}")
    elif isinstance(part, int | float | str) and not isinstance(part, bool):
        yield path, part


def place_in_table(name: str, place: str) -> str | None:
    """The entry of the table of figures for a pattern, as "by_schedule/*/mrr_cents"."""
    figures = EXPLAINABLE[name].figures if name in EXPLAINABLE else {}
    of_all = f"{place.rpartition('/')[0]}/*"
    return next((each for each in (place, of_all) if each in figures), None)
