"""Random scenarios: what happened to customers, contracts, bills and money, and the events that tell it.

Each scenario keeps two accounts. Expected books get the facts, in the order in which they happened. Events
are as handlers make them, with ids that say nothing of their order: some facts are told twice, some late,
many in one second. Each kind of life can be drawn alone: `scenarios("item trial")`.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import available_timezones

from hypothesis import strategies as st

from service.core.events import CREATED, Customer, Unused
from tests.support import random_contracts as contracts
from tests.support import random_money as money
from tests.support.expected_links import CustomerKey
from tests.support.random_recorder import Choices, Recorder, Scenario

__all__ = ["KINDS", "Choices", "Recorder", "Scenario", "add_customer", "scenarios"]

ZONES = ("UTC", "America/New_York", "Asia/Tokyo", "Pacific/Auckland")
ALL_ZONES = sorted(zone for zone in available_timezones() if "/" in zone)
CURRENCIES = ("usd", "eur", "jpy")
STARTS = tuple(
    datetime(2025, month, day, hour, minute, tzinfo=UTC)
    for month, day, hour, minute in (
        (1, 15, 10, 0),
        (1, 31, 23, 45),
        (2, 28, 4, 30),
        (3, 30, 12, 0),
        (5, 1, 0, 10),
        (1, 31, 2, 0),
        (8, 31, 4, 30),
    )
)

Life = Callable[[Recorder, CustomerKey, str, datetime], datetime]


def _life(contract: type[contracts.Contract | contracts.Observed]) -> Life:
    return lambda recorder, who, currency, start: contract(recorder, who, currency, start).live()


def _test_mode(recorder: Recorder, who: CustomerKey, _currency: str, start: datetime) -> datetime:
    """Events of the mode that does not count; the ledger keeps them as unused."""
    for _ in range(recorder.choices.number(1, 3)):
        kind = recorder.choices.pick(("invoice.paid", "customer.subscription.created"))
        event_id = recorder.name("evt_test", who)
        unused = Unused(original_type=kind, customer_id=who[2], ignored="test mode", event_id=event_id)
        recorder.record(who, start, unused)
        recorder.expected.ignored += 1
    return start


def _renderings(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A contract of which some events are told in two versions of the processor's API."""
    recorder.has_renderings = True
    end = contracts.Contract(recorder, who, currency, start).live()
    recorder.has_renderings = False
    return end


# What billers can post themselves.
POSTED: dict[str, Life] = {
    "contract": _life(contracts.Contract),
    "observed contract": _life(contracts.Observed),
    "bills of an observed contract": _life(contracts.ObservedLate),
    "vanished contract": _life(contracts.Vanished),
    "mixed intervals": _life(contracts.MixedIntervals),
    "one interval unbilled": _life(contracts.PartlyUnbilled),
    "item trial": _life(contracts.ItemTrial),
    "inclusive tax": _life(contracts.InclusiveTax),
    "automatic tax": _life(contracts.AutomaticTax),
    "coupons for products": _life(contracts.ProductCoupons),
    "coupon on the customer": contracts.couponed,
    "discount by its own event": _life(contracts.NamedDiscounts),
    "credit lines": _life(contracts.Credits),
    "many changes in a second": _life(contracts.ManyChanges),
    "end in silence": _life(contracts.SilentEnd),
    "quiet": _life(contracts.Quiet),
    "reactivation": contracts.reactivated,
    "proration on the renewal day": _life(contracts.Prorated),
    "period billed late": _life(contracts.BilledLate),
    "off the anchor": _life(contracts.OffTheAnchor),
    "schedule": _life(contracts.Planned),
    "hold": money.hold,
    "late failure": money.late_failure,
    "bounced payment": money.bounced,
    "shared payment": money.shared_payment,
    "nameless payment": money.nameless_payment,
    "moved payment": money.moved_payment,
    "part payments": money.part_payments,
    "tries told by several objects": money.tries,
    "tries of one number": money.numbered_tries,
    "payments without a link": money.unlinked_payments,
    "payment alone": money.standalone,
}
MIXED: dict[str, Life] = POSTED | {"void": money.voided, "test mode": _test_mode}
# Drawn alone only: where other tests revise the events of a scenario, none may be revised already.
KINDS: dict[str, Life] = MIXED | {"two renderings": _renderings}


@st.composite
def scenarios(draw, *kinds: str) -> Scenario:
    """One to three customers with their contracts, bills and payments, of these kinds or of any that mix."""
    choices = Choices(draw)
    recorder = Recorder(choices, choices.pick(ALL_ZONES if choices.sometimes(2) else ZONES))
    for number in range(choices.number(1, 3)):
        who = (
            choices.pick(("stripe", "stripe", "acme")),
            choices.pick(("", "", "acct_b")),
            f"cus_{number + 1 if choices.sometimes(2) else 1}",
        )
        add_customer(recorder, who, kinds or tuple(MIXED), has_more=not kinds)
    return recorder.scenario()


def add_customer(
    recorder: Recorder, who: CustomerKey, kinds: Sequence[str] = tuple(POSTED), *, has_more: bool = True
) -> None:
    """A customer with lives of some kinds; with more of them, also payments and a bill without a contract."""
    choices = recorder.choices
    currency = choices.pick(CURRENCIES)
    start = choices.pick(STARTS)
    recorder.record(
        who, start, Customer(customer_id=who[2], name=choices.pick((None, "Avery", "Blake"))), CREATED
    )
    for _ in range(choices.pick((1, 2, 3, 2, 0) if has_more else (1, 2))):
        kind = "contract" if has_more and choices.sometimes(2) else choices.pick(kinds)
        end = KINDS[kind](recorder, who, currency, start)
        start = (
            start + choices.pick(contracts.GAPS)
            if choices.sometimes()
            else end + choices.pick(contracts.GAPS)
        )
        currency = choices.pick(CURRENCIES) if choices.sometimes(6) else currency
    if has_more:
        for _ in range(choices.pick((0, 0, 1, 2))):
            at = start + choices.pick(contracts.GAPS)
            money.standalone(recorder, who, choices.pick(CURRENCIES), at)
        if choices.sometimes(4):
            money.bill(recorder, who, currency, start + choices.pick(contracts.GAPS))
