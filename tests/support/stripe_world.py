"""Lives of Stripe's customers: what the API shows at their end, and the events that told each change.

Every change is an event, and the object as it then is what the API shows, so both are of one world. Days are
counted from `START`; at `NOW` everything is over that was to happen.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from service.core.cadence import add_months
from tests.support.random_recorder import Choices
from tests.support.stripe_api import INVOICE, SUBSCRIPTION, Shop, fixture

START = datetime(2025, 1, 10, 9, tzinfo=UTC)
NOW = datetime(2025, 10, 5, 3, 17, tzinfo=UTC)
HOUR = 3_600
DAY = 24 * HOUR
CENTS = 4_900  # of one month of one seat

CUSTOMER = fixture("customer.created")["data"]["object"]
PRODUCT = fixture("product.updated")["data"]["object"]
PRICE = SUBSCRIPTION["items"]["data"][0]["price"]
CHARGE = fixture("charge.succeeded")["data"]["object"]
REFUND = fixture("refund.created")["data"]["object"]
DISPUTE = fixture("charge.dispute.created")["data"]["object"]
CREDIT_NOTE = fixture("credit_note.created")["data"]["object"]
INVOICE_PAYMENT = fixture("invoice_payment.paid")["data"]["object"]

Thing = dict[str, Any]


def at(days: float) -> int:
    """The second, since 1970, so many days after the start."""
    return int((START + timedelta(days=days)).timestamp())


class StripeWorld:
    """One account of Stripe, and what happens in it. Objects are numbered over all kinds."""

    def __init__(self, shop: Shop | None = None) -> None:
        self.shop = shop or Shop()
        self._count = 0

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count:06}"

    def _happens(self, kind: str, thing: Thing, created: int) -> Thing:
        self.shop.happens(kind, thing, created)
        return thing

    def _becomes(self, kind: str, thing: Thing, when: int, **changes: Any) -> Thing:
        return self._happens(kind, thing | changes, when)

    # What is sold, and to whom

    def product(self, when: int) -> Thing:
        """A product and its price, of which the price is returned."""
        product = PRODUCT | {"id": self._name("prod"), "name": "Desk", "created": when}
        self._happens("product.created", product, when)
        price = deepcopy(PRICE) | {"id": self._name("price"), "product": product["id"], "created": when}
        return self._happens("price.created", price, when)

    def customer(self, when: int, **its: Any) -> Thing:
        """A customer."""
        customer = CUSTOMER | {"id": self._name("cus"), "name": "Avery", "created": when, **its}
        return self._happens("customer.created", customer, when)

    def subscribe(
        self, customer: Thing, price: Thing, when: int, seats: int = 1, *more: Thing, **its: Any
    ) -> Thing:
        """A subscription of so many seats, and of one of each further price."""
        thing = deepcopy(SUBSCRIPTION) | {
            "id": self._name("sub"),
            "customer": customer["id"],
            "created": when,
            "start_date": when,
            "billing_cycle_anchor": when,
            **its,
        }
        [shape] = thing["items"]["data"]
        thing["items"]["data"] = [
            self._item(shape, thing, each, quantity)
            for each, quantity in zip((price, *more), (seats, *(1 for _ in more)), strict=True)
        ]
        return self._happens("customer.subscription.created", thing, when)

    def _item(self, shape: Thing, subscription: Thing, price: Thing, quantity: int) -> Thing:
        when, ends = subscription["created"], subscription["trial_end"]
        plan = shape["plan"] | {"id": price["id"], "product": price["product"]}
        return shape | {
            "id": self._name("si"),
            "subscription": subscription["id"],
            "price": price,
            "plan": plan,
            "quantity": quantity,
            "current_period_start": when,
            "current_period_end": ends or next_bill(price, when),
        }

    def renew(self, subscription: Thing, **changes: Any) -> Thing:
        """Its next period begins, of the items whose present one has ended."""
        thing = deepcopy(subscription | changes)
        items = thing["items"]["data"]
        begins = min(item["current_period_end"] for item in items)
        for item in items:
            if item["current_period_end"] == begins:
                following = next_bill(item["price"], begins)
                item |= {"current_period_start": begins, "current_period_end": following}
        return self._happens("customer.subscription.updated", thing, begins)

    def change_seats(self, subscription: Thing, seats: int, when: int) -> Thing:
        """Another quantity, which no invoice bills before the next period."""
        thing = deepcopy(subscription)
        thing["items"]["data"][0]["quantity"] = seats
        return self._happens("customer.subscription.updated", thing, when)

    def cancel(self, subscription: Thing, when: int) -> Thing:
        """It ends."""
        kind = "customer.subscription.deleted"
        return self._becomes(kind, subscription, when, status="canceled", canceled_at=when, ended_at=when)

    # Bills and money

    def bill(self, subscription: Thing, when: int) -> Thing:
        """The invoice of the periods that begin, finalized an hour after it was made."""
        items = [item for item in subscription["items"]["data"] if item["current_period_start"] == when]
        return self.issue(self.draft(subscription, [self.line(item) for item in items], when))

    def line(self, item: Thing, cents: int | None = None, **its: Any) -> Thing:
        """The line that bills an item for its present period, or any amount of it."""
        thing = deepcopy(INVOICE["lines"]["data"][0]) | {"id": self._name("il")}
        thing["amount"] = item["quantity"] * item["price"]["unit_amount"] if cents is None else cents
        thing["period"] = {"start": item["current_period_start"], "end": item["current_period_end"]}
        thing["parent"]["subscription_item_details"] |= {
            "subscription": item["subscription"],
            "subscription_item": item["id"],
        }
        thing["pricing"]["price_details"] = {
            "price": item["price"]["id"],
            "product": item["price"]["product"],
        }
        return thing | its

    def draft(self, subscription: Thing, lines: list[Thing], when: int, **its: Any) -> Thing:
        """An invoice of these lines that is not finalized."""
        taken_off = sum(part["amount"] for line in lines for part in line["discount_amounts"])
        amount = sum(line["amount"] for line in lines) - taken_off
        thing = deepcopy(INVOICE) | {
            "id": self._name("in"),
            "customer": subscription["customer"],
            "created": when,
            "status": "draft",
            "amount_due": amount,
            "amount_paid": 0,
            "amount_remaining": amount,
            "subtotal": amount,
            "total": amount,
            "payments": {"object": "list", "data": [], "has_more": False},
            "status_transitions": {"finalized_at": None, "paid_at": None},
            **its,
        }
        thing["parent"]["subscription_details"]["subscription"] = subscription["id"]
        thing["lines"]["data"] = [line | {"invoice": thing["id"]} for line in lines]
        return self._happens("invoice.created", thing, when)

    def issue(self, draft: Thing) -> Thing:
        """A draft is finalized an hour after it was made."""
        when = draft["created"] + HOUR
        transitions = draft["status_transitions"] | {"finalized_at": when}
        return self._becomes("invoice.finalized", draft, when, status="open", status_transitions=transitions)

    def pay(self, invoice: Thing, when: int, *, fails_first: bool = False) -> Thing:
        """The invoice is paid, perhaps a day after an attempt that failed. The charge."""
        payment_id = self._name("pi")
        if fails_first:
            self.charge(invoice, when - DAY, payment_id, succeeds=False)
            self._happens("invoice.payment_failed", invoice | {"attempted": True}, when - DAY)
        charge = self.charge(invoice, when, payment_id)
        link = INVOICE_PAYMENT | {
            "id": self._name("inpay"),
            "invoice": invoice["id"],
            "amount_paid": invoice["amount_due"],
            "created": when,
            "payment": {"payment_intent": payment_id, "type": "payment_intent"},
            "status_transitions": {"canceled_at": None, "paid_at": when},
        }
        self._happens("invoice_payment.paid", link, when)
        paid = {"amount_paid": invoice["amount_due"], "amount_remaining": 0, "status": "paid"}
        transitions = invoice["status_transitions"] | {"paid_at": when}
        payments = invoice["payments"] | {"data": [link]}
        self._becomes(
            "invoice.paid", invoice, when, **paid, status_transitions=transitions, payments=payments
        )
        return charge

    def settle(self, invoice: Thing, when: int) -> Thing:
        """An invoice of nothing is paid without a charge."""
        transitions = invoice["status_transitions"] | {"paid_at": when}
        return self._becomes("invoice.paid", invoice, when, status="paid", status_transitions=transitions)

    def end_invoice(self, invoice: Thing, status: str, when: int) -> Thing:
        """The invoice is void or uncollectible."""
        kind = {"void": "invoice.voided", "uncollectible": "invoice.marked_uncollectible"}[status]
        return self._becomes(kind, invoice, when, status=status)

    def charge(self, payer: Thing, when: int, payment_id: str = "", *, succeeds: bool = True) -> Thing:
        """An attempt to collect what an invoice is for, or 50 dollars of a customer."""
        amount = payer.get("amount_due", 5_000)
        thing = CHARGE | {
            "id": self._name("ch"),
            "customer": payer.get("customer", payer["id"]),
            "payment_intent": payment_id or self._name("pi"),
            "amount": amount,
            "amount_captured": amount if succeeds else 0,
            "captured": succeeds,
            "paid": succeeds,
            "status": "succeeded" if succeeds else "failed",
            "created": when,
        }
        return self._happens("charge.succeeded" if succeeds else "charge.failed", thing, when)

    def refund(self, charge: Thing, cents: int, when: int) -> Thing:
        """A part of a charge is given back."""
        thing = REFUND | {
            "id": self._name("re"),
            "charge": charge["id"],
            "payment_intent": charge["payment_intent"],
            "amount": cents,
            "created": when,
        }
        self._becomes(
            "charge.refunded", charge, when, amount_refunded=cents, refunded=cents == charge["amount"]
        )
        return self._happens("refund.created", thing, when)

    def dispute(self, charge: Thing, when: int, outcome: str, closed: int) -> Thing:
        """A charge is disputed, and its money taken at once; it is given back where the dispute is won."""
        taken = DISPUTE["balance_transactions"][0] | {"amount": -charge["amount"], "created": when}
        thing = DISPUTE | {
            "id": self._name("du"),
            "charge": charge["id"],
            "payment_intent": charge["payment_intent"],
            "amount": charge["amount"],
            "created": when,
            "balance_transactions": [taken],
        }
        self._happens("charge.dispute.created", thing, when)
        given = (
            [taken, taken | {"amount": charge["amount"], "created": closed}] if outcome == "won" else [taken]
        )
        return self._becomes(
            "charge.dispute.closed", thing, closed, status=outcome, balance_transactions=given
        )

    def credit(self, invoice: Thing, cents: int, when: int) -> Thing:
        """Money of an invoice is given back by hand."""
        thing = CREDIT_NOTE | {
            "id": self._name("cn"),
            "invoice": invoice["id"],
            "customer": invoice["customer"],
            "amount": cents,
            "out_of_band_amount": cents,
            "created": when,
            "refunds": [],
        }
        return self._happens("credit_note.created", thing, when)


def next_bill(price: Thing, second: int) -> int:
    """The end of a price's period that begins then."""
    recurring, moment = price["recurring"], datetime.fromtimestamp(second, UTC)
    if recurring["interval"] == "week":
        return second + recurring["interval_count"] * 7 * DAY
    months = recurring["interval_count"] * (12 if recurring["interval"] == "year" else 1)
    return int(datetime.combine(add_months(moment.date(), months, moment.day), moment.timetz()).timestamp())


def undo(world: StripeWorld, how: str, invoice: Thing, charge: Thing, when: int) -> None:
    """What was paid is given back, now or before all is over; or not, where it is `kept`."""
    over = int(NOW.timestamp())
    when = min(when, over - HOUR)
    closed = min(when + 20 * DAY, over - HOUR // 2)
    ways: dict[str, Callable[[], Thing]] = {
        "refunded": lambda: world.refund(charge, charge["amount"] // 2, when),
        "lost": lambda: world.dispute(charge, when, "lost", closed),
        "won": lambda: world.dispute(charge, when, "won", closed),
        "credited": lambda: world.credit(invoice, 700, when),
    }
    if how != "kept":
        ways[how]()


# Random lives

FATES = ("paid", "paid", "paid after a failure", "open", "void", "uncollectible")
UNDONE = ("kept", "kept", "kept", "refunded", "lost", "won", "credited")


class _Life:
    """A customer with a subscription that is billed each month until it ends, or until now."""

    def __init__(self, world: StripeWorld, choices: Choices, price: Thing, *, changes_seats: bool) -> None:
        self.world, self.choices, self.changes_seats = world, choices, changes_seats
        begins = at(choices.number(0, 15))
        self.customer = world.customer(begins)
        self.subscription = world.subscribe(self.customer, price, begins, choices.number(1, 3))
        self._ends_after = choices.pick((99, 99, 3, 1))

    def live(self) -> None:
        for _ in self._periods():
            self._bill()
            if self.changes_seats and self.choices.sometimes(4):
                middle = self.subscription["items"]["data"][0]["current_period_start"] + 10 * DAY
                self.subscription = self.world.change_seats(
                    self.subscription, self.choices.number(1, 4), middle
                )
        if self.choices.sometimes(2):
            self.world.charge(self.customer, at(self.choices.number(20, 200)))

    def _periods(self) -> Iterator[int]:
        """Period by period, each once it has begun."""
        number = 0
        while True:
            number += 1
            yield number
            ends = self.subscription["items"]["data"][0]["current_period_end"]
            if number == self._ends_after:
                self.subscription = self.world.cancel(self.subscription, ends - 3 * DAY)
            if number == self._ends_after or ends > NOW.timestamp():
                return
            self.subscription = self.world.renew(self.subscription)

    def _bill(self) -> None:
        begins = self.subscription["items"]["data"][0]["current_period_start"]
        invoice, fate = self.world.bill(self.subscription, begins), self.choices.pick(FATES)
        later = min(begins + 3 * DAY, int(NOW.timestamp()) - HOUR)
        if fate in ("void", "uncollectible"):
            self.world.end_invoice(invoice, fate, later)
        elif fate != "open":
            charge = self.world.pay(invoice, later, fails_first=fate != "paid")
            undo(self.world, self.choices.pick(UNDONE), invoice, charge, later + 5 * DAY)


@st.composite
def shops(draw, *, changes_seats: bool = False) -> Shop:
    """An account with one to three customers. Where seats change, some changes are never billed."""
    world, choices = StripeWorld(), Choices(draw)
    price = world.product(at(-1))
    for _ in range(choices.number(1, 3)):
        _Life(world, choices, price, changes_seats=changes_seats).live()
    return world.shop
