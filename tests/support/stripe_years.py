"""Years of an account of Stripe: what its customers do, and the times that no invoice bills as they were."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from tests.support.stripe_world import DAY, HOUR, NOW, StripeWorld, Thing, next_bill, undo

BEGAN = datetime(NOW.year - 3, NOW.month, 6, 9, tzinfo=UTC)
END = int(NOW.timestamp())

# Why the MRR of a time is not what was billed for it.
SEATS = "another quantity, billed from the next period on"
PRICE = "another price, of which a proration bills the rest of the period"
DISCOUNT_BEGAN = "a discount that began within a period"
VOID = "a void invoice"
PAUSED = "collection was paused within a period that was billed, or its invoices given up"
RESUMED = "collection was resumed within a period that was not billed"
UNPAID = "the contract became unpaid within a period that was billed"
REPAID = "the contract became active again within a period that was not billed"
REASONS = {SEATS, PRICE, DISCOUNT_BEGAN, VOID, PAUSED, RESUMED, UNPAID, REPAID}

FATES = (*["paid"] * 20, "paid after a failure", "paid after a failure", "open", "void", "uncollectible")
UNDONE = (*["kept"] * 20, "refunded", "refunded", "lost", "won", "credited")


class Unbilled(NamedTuple):
    """The seconds, since 1970, between which a customer's MRR is not what was billed; and why."""

    why: str
    begins: int
    ends: int


class Account(StripeWorld):
    """An account of Stripe. Its events name discounts by their ids, as Stripe's do."""

    def __init__(self) -> None:
        super().__init__()
        self.prices = [
            [self._price(cents * factor, *recurring) for factor in (1, 2)]
            for cents, *recurring in (
                (4_900, "month", 1),
                (3_000, "week", 1),
                (24_900, "week", 4),
                (26_700, "month", 3),
                (99_600, "year", 1),
            )
        ]
        self.metered = self._price(5, "month", 1, "metered")

    def _price(self, cents: int, interval: str, every: int, usage: str = "licensed") -> Thing:
        price = self.product(int(BEGAN.timestamp()) - DAY)
        terms = {"interval": interval, "interval_count": every, "usage_type": usage}
        recurring = price["recurring"] | terms
        price |= {"unit_amount": cents, "unit_amount_decimal": str(cents), "recurring": recurring}
        return self._happens("price.updated", price, price["created"])

    def _happens(self, kind: str, thing: Thing, created: int) -> Thing:
        listed = thing.get("discounts") or []
        self.shop.tells(
            kind, thing | ({"discounts": [each["id"] for each in listed]} if listed else {}), created
        )
        self.shop.objects[thing["id"]] = thing
        return thing

    def changes(self, subscription: Thing, when: int, **changes: Any) -> Thing:
        """A subscription becomes so."""
        return self._becomes("customer.subscription.updated", subscription, when, **changes)

    def discount(self, owner: Thing, coupon: Thing, when: int) -> Thing:
        """A coupon comes off a contract, or off all of a customer's, from now on. The owner."""
        is_customer = owner["object"] == "customer"
        months = {"interval": "month", "interval_count": coupon["duration_in_months"]}
        discount = {
            "id": self._name("di"),
            "object": "discount",
            "coupon": coupon,
            "customer": owner["id"] if is_customer else owner["customer"],
            "subscription": None if is_customer else owner["id"],
            "start": when,
            "end": next_bill({"recurring": months}, when) if coupon["duration"] == "repeating" else None,
        }
        self.shop.tells("customer.discount.created", discount, when)
        if is_customer:
            return self._becomes("customer.updated", owner, when, discount=discount)
        return self.changes(owner, when, discounts=[discount])

    def end_discount(self, owner: Thing, discount: Thing, when: int) -> Thing:
        """A discount comes off no more, which no event tells of its owner. The owner."""
        self.shop.tells("customer.discount.deleted", discount, when)
        ended = {"discount": None} if owner["object"] == "customer" else {"discounts": []}
        self.shop.objects[owner["id"]] = owner | ended
        return owner | ended


class Customer:
    """A customer, with one contract after the other. `unbilled` is of all of them."""

    def __init__(self, account: Account, rng: Random) -> None:
        self.account, self.rng = account, rng
        self.unbilled: list[Unbilled] = []
        self._begins = _in_each_month(int(BEGAN.timestamp()) + rng.randrange(900) * DAY)
        self.thing = account.customer(self._begins)
        if rng.randrange(10) == 0:
            self.thing = account.discount(
                self.thing, a_coupon(rng, may_be_once=False, may_be_amount=False), self._begins
            )

    def live(self) -> None:
        """Live until now."""
        begins = self._begins
        while begins < END:
            ended = Contract(self, begins).live()
            begins = _in_each_month(ended + 40 * DAY) if self.rng.randrange(3) == 0 else END
        if self.rng.randrange(4) == 0:
            self.account.charge(self.thing, END - self.rng.randrange(1, 200) * DAY)


def _in_each_month(second: int) -> int:
    """A moment, or one up to three days earlier, whose day each month has."""
    return second - max(datetime.fromtimestamp(second, UTC).day - 28, 0) * DAY


def a_coupon(rng: Random, *, may_be_once: bool = True, may_be_amount: bool = True) -> Thing:
    """A coupon, of which the percentages are whole cents of each price."""
    percent = {"percent_off": rng.choice((20, 50)), "amount_off": None, "currency": None}
    amount = {"percent_off": None, "amount_off": 1_000, "currency": "usd"}
    value = rng.choice((percent, amount)) if may_be_amount else percent
    duration = rng.choice(("forever", "repeating", "repeating", *(("once",) if may_be_once else ())))
    months = rng.choice((3, 5)) if duration == "repeating" else None
    named = {"id": f"{duration}-{rng.randrange(1_000)}", "object": "coupon", "valid": True}
    return named | value | {"duration": duration, "duration_in_months": months}


class Contract:
    """A contract of a customer, from its beginning to its end, or until now."""

    def __init__(self, customer: Customer, begins: int) -> None:
        self.customer, self.account, self.rng = customer, customer.account, customer.rng
        self._added: list[Thing] = []  # lines of the next invoice
        self._begins = begins
        self.thing: Thing | None = None
        self._end_discounts(begins)
        self.thing = self._subscribe(begins)

    def _subscribe(self, when: int) -> Thing:
        account, kind, seats = self.account, self.rng.randrange(12), self.rng.randint(1, 4)
        monthly, yearly = account.prices[0][0], account.prices[-1][0]
        if kind == 0:
            return account.subscribe(self.customer.thing, monthly, when, seats, yearly)
        if kind == 1:
            return account.subscribe(self.customer.thing, monthly, when, seats, account.metered)
        if kind == 2:
            ends = when + 14 * DAY
            trial = {"trial_start": when, "trial_end": ends, "billing_cycle_anchor": ends}
            return account.subscribe(self.customer.thing, monthly, when, seats, status="trialing", **trial)
        price = self.rng.choice(account.prices)[0]
        thing = account.subscribe(self.customer.thing, price, when, seats)
        if kind < 7 and not self.customer.thing["discount"]:
            return account.discount(thing, a_coupon(self.rng), when)
        return thing

    def live(self) -> int:
        """Live to the end, or until now; returns when that is."""
        self._bill()
        while True:
            self._meet(self._begins + (3 if self._ends < self._begins + 12 * DAY else 12) * DAY)
            if self.thing["ended_at"]:
                return self.thing["ended_at"]
            self._end_discounts(self._ends)
            if self._ends > END:
                return END
            if self.thing["cancel_at"]:
                self.thing = self.account.cancel(self.thing, self._ends)
                return self.thing["ended_at"]
            self._begins = self._ends
            active = {"status": "active"} if self.thing["status"] == "trialing" else {}
            self.thing = self.account.renew(self.thing, **active)
            self._bill()

    @property
    def _items(self) -> list[Thing]:
        return self.thing["items"]["data"]

    @property
    def _ends(self) -> int:
        """The end of the present period, of the item whose is the shortest."""
        return min(item["current_period_end"] for item in self._items)

    def _not_billed(self, why: str, begins: int) -> None:
        """From now on, until an invoice bills them anew, the items are not what was billed."""
        ends = max(item["current_period_end"] for item in self._items)
        self.customer.unbilled.append(Unbilled(why, begins, ends))

    # Discounts

    def _end_discounts(self, until: int) -> None:
        """End the discounts whose end has come."""
        for owner in (self.customer, *([self] if self.thing else ())):
            for discount in _discounts(owner.thing):
                if discount["end"] and discount["end"] <= min(until, END):
                    owner.thing = self.account.end_discount(owner.thing, discount, discount["end"])

    def _discounted(self, lines: list[Thing]) -> list[Thing]:
        """The lines, with what the discount that is in force takes off."""
        for discount in (_discounts(self.thing) or _discounts(self.customer.thing))[:1]:
            coupon = discount["coupon"]
            for line in lines:
                percent, cents = coupon["percent_off"], line["amount"]
                off = cents * percent // 100 if percent else min(coupon["amount_off"], cents)
                line["discount_amounts"] = [{"amount": off, "discount": discount["id"]}]
        return lines

    # Bills

    def _bill(self) -> None:
        begins, is_first = self._begins, self._begins == self.thing["start_date"]
        lines = [
            self._line(item, is_first=is_first)
            for item in self._items
            if item["current_period_start"] == begins
        ]
        self._invoice([*self._discounted(lines), *self._added], begins)
        self._added = []
        for discount in self.thing["discounts"]:
            if discount["coupon"]["duration"] == "once":
                self.thing = self.account.end_discount(self.thing, discount, begins)

    def _line(self, item: Thing, *, is_first: bool) -> Thing:
        if self.thing["status"] == "trialing":
            return self.account.line(item, 0)
        if item["price"]["recurring"]["usage_type"] == "metered":
            period = {"start": self._begins - 28 * DAY, "end": self._begins}
            return self.account.line(item, 0 if is_first else self.rng.randrange(9) * 500, period=period)
        return self.account.line(item)

    def _invoice(self, lines: list[Thing], when: int, reason: str = "subscription_cycle") -> None:
        discounts = (_discounts(self.thing) or _discounts(self.customer.thing))[:1]
        draft = self.account.draft(self.thing, lines, when, billing_reason=reason, discounts=discounts)
        paused = (self.thing["pause_collection"] or {}).get("behavior")
        if self.thing["status"] == "unpaid" or paused == "keep_as_draft":
            return
        invoice = self.account.issue(draft)
        if paused:
            ended = "void" if paused == "void" else "uncollectible"
            self.account.end_invoice(invoice, ended, when + 2 * HOUR)
            if ended == "uncollectible":
                self._not_billed(PAUSED, when)
        elif invoice["amount_due"] == 0:
            self.account.settle(invoice, when + 2 * HOUR)
        else:
            self._collect(invoice, when)

    def _collect(self, invoice: Thing, when: int) -> None:
        fate, later = self.rng.choice(FATES), min(when + 3 * DAY, END - HOUR)
        fails_first = fate == "paid after a failure" and later - DAY > when + HOUR
        if fate == "void":
            self._not_billed(VOID, when)
        if fate in ("void", "uncollectible"):
            self.account.end_invoice(invoice, fate, later)
        elif fate != "open":
            charge = self.account.pay(invoice, later, fails_first=fails_first)
            undo(self.account, self.rng.choice(UNDONE), invoice, charge, later + 5 * DAY)

    # What happens within a period

    def _meet(self, when: int) -> None:
        if when > END - 2 * HOUR:
            return
        self._end_discounts(when)
        if self.thing["pause_collection"]:
            ways = [self._stay, self._resume]
        elif self.thing["status"] == "unpaid":
            ways = [self._stay, self._repay, self._leave]
        elif self.thing["status"] == "trialing":
            ways = [self._stay] * 4 + [self._leave]
        else:
            ways = [self._stay] * 20 + [self._change_seats, self._change_price, self._change_interval]
            ways += [self._get_discount, self._pause, self._fall_behind, self._leave, self._leave_later]
        if self._items[-1]["price"] == self.account.metered:
            ways += [self._drop_metered] * 3
        self.rng.choice(ways)(when)

    def _stay(self, _when: int) -> None:
        """Nothing happens."""

    def _change_seats(self, when: int) -> None:
        seats = self._items[0]["quantity"] + self.rng.choice((1, 2))
        self.thing = self.account.change_seats(self.thing, seats if seats < 9 else 1, when)
        self._not_billed(SEATS, when)

    def _change_price(self, when: int) -> None:
        """To the higher price of two, prorated at once or on the next invoice; or to the lower one."""
        old = self._items[0]
        basic, pro = next(pair for pair in self.account.prices if old["price"] in pair)
        is_upgrade = old["price"] == basic
        new = old | {"price": pro if is_upgrade else basic}
        self._replace_item(new, when)
        self._not_billed(PRICE, when)
        if is_upgrade:
            prorations = [self._proration(old, when, -1), self._proration(new, when, 1)]
            if self.rng.randrange(2):
                self._invoice(prorations, when, "subscription_update")
            else:
                self._added += prorations

    def _proration(self, item: Thing, when: int, sign: int) -> Thing:
        """The line that takes back what is left of an item's period, or bills it."""
        begins, ends = item["current_period_start"], item["current_period_end"]
        whole = item["quantity"] * item["price"]["unit_amount"]
        period = {"start": when, "end": ends}
        line = self.account.line(item, sign * (whole * (ends - when) // (ends - begins)), period=period)
        line["parent"]["subscription_item_details"]["proration"] = True
        return line

    def _drop_metered(self, when: int) -> None:
        """What is billed by use is a part of the contract no more."""
        items = self.thing["items"] | {"data": self._items[:-1]}
        self.thing = self.account.changes(self.thing, when, items=items)

    def _change_interval(self, when: int) -> None:
        """To the yearly price, from now on: a new period begins."""
        [old, *more] = self._items
        yearly = self.account.prices[-1]
        if more or old["price"] in yearly:
            return
        period = {"current_period_start": when, "current_period_end": next_bill(yearly[0], when)}
        self._replace_item(old | {"price": yearly[0], **period}, when, billing_cycle_anchor=when)
        self._begins = when
        lines = self._discounted([self.account.line(self._items[0])])
        self._invoice([*lines, self._proration(old, when, -1), *self._added], when, "subscription_update")
        self._added = []

    def _replace_item(self, item: Thing, when: int, **changes: Any) -> None:
        plan = item["plan"] | {"id": item["price"]["id"], "product": item["price"]["product"]}
        items = self.thing["items"] | {"data": [item | {"plan": plan}, *self._items[1:]]}
        self.thing = self.account.changes(self.thing, when, items=items, **changes)

    def _get_discount(self, when: int) -> None:
        if _discounts(self.thing) or _discounts(self.customer.thing):
            return
        coupon = a_coupon(self.rng, may_be_amount=len(self._items) == 1)
        self.thing = self.account.discount(self.thing, coupon, when)
        if coupon["duration"] != "once":
            self._not_billed(DISCOUNT_BEGAN, when)

    def _pause(self, when: int) -> None:
        behavior = self.rng.choice(("void", "keep_as_draft", "mark_uncollectible"))
        pause = {"behavior": behavior, "resumes_at": None}
        self.thing = self.account.changes(self.thing, when, pause_collection=pause)
        self._not_billed(PAUSED, when)

    def _resume(self, when: int) -> None:
        self.thing = self.account.changes(self.thing, when, pause_collection=None)
        self._not_billed(RESUMED, when)

    def _fall_behind(self, when: int) -> None:
        self.thing = self.account.changes(self.thing, when, status="unpaid")
        self._not_billed(UNPAID, when)

    def _repay(self, when: int) -> None:
        self.thing = self.account.changes(self.thing, when, status="active")
        self._not_billed(REPAID, when)

    def _leave(self, when: int) -> None:
        self.thing = self.account.cancel(self.thing, when)

    def _leave_later(self, when: int) -> None:
        self.thing = self.account.changes(self.thing, when, cancel_at=self._ends, cancel_at_period_end=True)


def _discounts(owner: Thing) -> Sequence[Thing]:
    """The discounts of a contract, or the one of a customer."""
    return (
        owner["discounts"]
        if owner["object"] == "subscription"
        else [owner["discount"]] * bool(owner["discount"])
    )


def customers(account: Account, count: int, seed: int) -> Iterator[Customer]:
    """So many customers of an account, each once it has lived until now."""
    rng = Random(seed)
    for _ in range(count):
        customer = Customer(account, rng)
        customer.live()
        yield customer
