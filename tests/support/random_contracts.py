"""Contracts, told whole at each change: each kind of them is a class, which lives one for a while."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

from msgspec import json

from service.core.events import (
    CREATED,
    DELETED,
    UPDATED,
    AppliedDiscount,
    Customer,
    Discount,
    Item,
    Phase,
    Schedule,
    Subscription,
    Tier,
)
from tests.support.expected_books import (
    ContractFacts,
    Coupon,
    CustomerKey,
    Fact,
    Plan,
    Tax,
    most_frequent,
    schedule_of,
)
from tests.support.expected_dates import moved
from tests.support.expected_prices import Deduction, Price
from tests.support.random_money import InvoiceLife, bill
from tests.support.random_recorder import Recorder

SCHEDULES = (("month", 1), ("week", 1), ("week", 4), ("week", 10), ("month", 3), ("year", 1), ("day", 30))
GAPS = (
    timedelta(0),
    timedelta(seconds=1),
    timedelta(hours=5),
    timedelta(days=3),
    timedelta(days=12),
    timedelta(days=31),
    timedelta(days=47),
)
CENTS = (Decimal(24900), Decimal(53500), Decimal(1), Decimal("1049.5"), Decimal(16200), Decimal("0.75"))
PERCENTS = (Decimal(20), Decimal("33.3"), Decimal(100), Decimal("12.5"))
PRODUCTS = ("prod_desk", "prod_lamp", "prod_chair")

Action = Callable[[Any], None]


class Contract:
    """A subscription, told whole at each change, and renewed at each period's end."""

    def __init__(self, recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> None:
        self.recorder, self.choices, self.who, self.currency = recorder, recorder.choices, who, currency
        self.name = recorder.name("sub", who)
        self.now = self.anchor = start
        interval, every = self.choices.pick(self.SCHEDULES)
        self.fact = Fact(since=start, status="active", interval=interval, every=every, prices=())
        self.facts: list[Fact] = []
        self.taxes: list[Tax] = []
        self.plans: tuple[Plan, ...] = ()
        self.last: Subscription | None = None
        self.last_at, self.last_is_chained = start, True

    def live(self) -> datetime:
        self.begin()
        self.say(rank=CREATED)
        if self.fact.status == "active" and self.choices.sometimes(2):
            self.bill_by_hand()
        for _ in range(self.choices.number(1, 8)):
            self.now += self.choices.pick(GAPS)
            self.renew()
            if self.fact.over:
                break
            self.choices.pick(self.ACTIONS)(self)
            if self.fact.over:
                break
        if not self.fact.over:
            self.leave()
        self.close()
        return self.now

    def begin(self) -> None:
        """What holds at first."""
        self.fact = replace(self.fact, prices=(self.price(),))
        if self.choices.sometimes(4):
            ends = self.now + self.choices.pick((timedelta(days=14), timedelta(days=30)))
            self.anchor = ends
            self.fact = replace(self.fact, status="trialing", trial_end=ends, next_bill=ends)
        else:
            status = "incomplete" if self.choices.sometimes(6) else "active"
            self.fact = replace(self.fact, status=status, next_bill=self.after(self.anchor))

    def leave(self) -> None:
        """It goes on when the scenario ends; its last renewal may have been billed and not told yet."""
        if self.choices.sometimes(3):
            self.now += timedelta(days=20)
            self.renew(last_is_late=True)

    def close(self) -> None:
        self.recorder.expected.contracts.append(
            ContractFacts(
                who=self.who,
                name=self.name,
                currency=self.currency,
                facts=tuple(self.facts),
                taxes=tuple(self.taxes),
                plans=self.plans,
            )
        )

    # Telling

    def say(self, rank: int = UPDATED, late: timedelta = timedelta(0)) -> None:
        """Record what holds now, and tell it.

        Within one second each change is told with what was there before: else nothing could say which
        came first, so a change after one that was told without it waits for the next second.
        """
        if self.now + late == self.last_at and not self.last_is_chained:
            self.now += timedelta(seconds=1)
        if not self.fact.over:
            self.fact = replace(self.fact, since=self.now)
        self.fact = replace(self.fact, anchor=self.anchor)
        if self.facts and self.facts[-1] == replace(self.fact, since=self.facts[-1].since):
            return
        self.facts.append(self.fact)
        when, data = self.now + late, self.data()
        chained = rank == UPDATED and (when == self.last_at or self.choices.sometimes(2))
        before = json.encode(self.last) if chained and self.last else None
        self.recorder.record(self.who, when, data, rank, before=before)
        if self.choices.sometimes(8) and rank != CREATED:  # two events of one state, as resume and update are
            same = json.encode(data) if chained else None
            self.recorder.record(self.who, when, data, rank, before=same)
        self.last, self.last_at, self.last_is_chained = data, when, chained or rank == CREATED

    def data(self) -> Subscription:
        fact = self.fact
        return Subscription(
            subscription_id=self.name,
            customer_id=self.who[2],
            status=fact.status,
            currency=self.currency,
            items=tuple(item(fact, price) for price in fact.prices),
            discounts=tuple(map(discount, fact.offs)),
            next_bill_at=fact.next_bill,
            trial_end_at=fact.trial_end,
            anchor_at=fact.anchor,
            automatic_tax=fact.is_taxed,
            cancel_at=fact.cancel_at,
            ended_at=fact.since if fact.over else None,
            collection_paused=not fact.collecting,
        )

    # Time going by

    def after(self, moment: datetime) -> datetime:
        """The end of the period that begins at a moment."""
        return later(moment, self.fact.interval, self.fact.every, self.anchor.day)

    def due(self) -> datetime | None:
        if self.fact.status == "trialing":
            return self.fact.trial_end
        return self.fact.next_bill if self.fact.status in ("active", "past_due") else None

    def moved_on(self, due: datetime) -> Fact:
        """What holds once a bill is issued."""
        status = "active" if self.fact.status == "trialing" else self.fact.status
        return replace(self.fact, status=status, trial_end=None, next_bill=self.after(due))

    def renew(self, *, last_is_late: bool = False) -> None:
        """Bill the periods that ended until now, the last two of them; end when the cancellation comes."""
        until, stop = self.now, self.fact.cancel_at
        dues: list[datetime] = []
        while (due := self.due()) and due <= until and not (stop and stop <= due):
            dues.append(due)
            self.fact = self.moved_on(due)
        self.fact = self.facts[-1]
        for number, due in enumerate(dues, 1):
            is_told = number > len(dues) - 2
            if is_told:
                self.now = due
                self.invoice_of(due)
            if last_is_late and number == len(dues):
                return
            self.fact = self.moved_on(due)
            if is_told:
                self.say()
        self.now = until
        if stop and stop <= until:
            self.now = stop
            self.end()

    def invoice_of(self, due: datetime) -> None:
        day = self.recorder.expected.day(due)
        periods = self.periods_from(due) if self.choices.sometimes(2) else ()
        fates = None if self.fact.collecting else ("paused",)
        self.bill(due, covers=day, periods=periods, fates=fates)

    def periods_from(self, due: datetime) -> tuple[tuple[datetime, datetime], ...]:
        """The periods that an invoice bills, each from the moment at which it is due to its end."""
        return ((due, self.after(due)),)

    def bill(self, made: datetime, **fields: Any) -> InvoiceLife:
        return bill(self.recorder, self.who, self.currency, made, contract=self.name, **fields)

    def end(self) -> None:
        """It is over. That may be told late, and something told before it may seem to come after it."""
        late = self.choices.pick((timedelta(0), timedelta(days=2), timedelta(seconds=2), timedelta(days=2)))
        alive = self.last
        self.fact = replace(self.fact, status="canceled", over=True, since=self.now)
        self.say(rank=DELETED, late=late)
        if self.who[0] == "stripe" and self.choices.sometimes(3) and alive:  # others bring them back so
            echo = self.now + self.choices.pick((timedelta(0), timedelta(days=1), timedelta(days=40)))
            self.recorder.record(self.who, echo, alive)

    # What a customer or a merchant may do

    def price(self, *kinds: str) -> Price:
        choices = self.choices
        unit, quantity = choices.pick(CENTS), choices.pick((1, 1, 2, 7))
        kind = choices.pick(
            ("plain",) * 6 + ("graduated", "volume", "packages", "metered", "unreadable", *kinds)
        )
        tiers = ((2, unit, Decimal(100)), (5, unit / 2, Decimal(0)), (None, unit / 4, Decimal(900)))
        return {
            "plain": Price(unit, quantity),
            "graduated": Price(None, quantity, tiers=tiers),
            "volume": Price(None, quantity, tiers=tiers, all_units_in_one_tier=True),
            "packages": Price(unit, quantity, packages=3, packages_round_up=choices.sometimes(2)),
            "metered": Price(unit, 1, metered=True),
            "once": Price(unit, quantity, once=True),
            "unreadable": Price(None, quantity),
        }[kind]

    def change_price(self) -> None:
        self.set(prices=(self.price(), *self.fact.prices[1:]))

    def change_quantity(self) -> None:
        first, *others = self.fact.prices
        self.set(prices=(replace(first, quantity=first.quantity % 7 + 1), *others))

    def add_item(self) -> None:
        self.set(prices=(*self.fact.prices[:2], self.price("once")))

    def drop_item(self) -> None:
        self.set(prices=self.fact.prices[:1])

    def add_discount(self) -> None:
        choices = self.choices
        ends = self.now + choices.pick((timedelta(days=20), timedelta(days=61), timedelta(hours=3)))
        off = {
            "forever": Deduction(percent=choices.pick(PERCENTS)),
            "amount": Deduction(amount=choices.pick((500, 30_000, 1))),
            "repeating": Deduction(percent=choices.pick(PERCENTS), until=ends),
            "repeating amount": Deduction(amount=choices.pick((500, 30_000)), until=ends),
            "once": Deduction(percent=choices.pick(PERCENTS), lasting=False),
        }[choices.pick(("forever", "amount", "repeating", "repeating amount", "once"))]
        self.set(offs=(*self.fact.offs[-1:], off))

    def add_percentage(self) -> None:
        self.set(offs=(*self.fact.offs[-1:], Deduction(percent=self.choices.pick(PERCENTS))))

    def drop_discounts(self) -> None:
        self.set(offs=())

    def switch_schedule(self) -> None:
        interval, every = self.choices.pick(SCHEDULES)
        self.fact = replace(self.fact, interval=interval, every=every)
        self.anchor = self.now
        self.set(next_bill=self.after(self.now))

    def pause_or_resume_collection(self) -> None:
        self.set(collecting=not self.fact.collecting)

    def change_status(self) -> None:
        if self.fact.status == "incomplete" and self.choices.sometimes(3):
            self.fact = replace(self.fact, status="incomplete_expired", over=True, since=self.now)
            self.say()
        elif self.fact.status != "trialing":
            status = self.choices.pick(("past_due", "active", "unpaid", "paused", "active"))
            next_bill = self.fact.next_bill
            while next_bill <= self.now:
                next_bill = self.after(next_bill)
            self.set(status=status, next_bill=next_bill)

    def cancel_or_keep(self) -> None:
        if self.fact.cancel_at:
            self.set(cancel_at=None)
        else:
            some_day = self.now + self.choices.pick((timedelta(days=9), timedelta(days=75)))
            self.set(cancel_at=self.choices.pick((self.due() or some_day, some_day)))

    def cancel_now(self) -> None:
        self.end()

    def cancel_ahead(self) -> None:
        """It is cancelled today, and ends some days on."""
        ahead = timedelta(days=3)
        self.now += ahead
        self.fact = replace(self.fact, status="canceled", over=True, since=self.now)
        self.say(rank=DELETED, late=-ahead)

    def twice_in_a_second(self) -> None:
        """Two or three changes without a moment between them."""
        self.change_price()
        self.change_quantity()
        if self.choices.sometimes(2):
            self.pause_or_resume_collection()

    def bill_by_hand(self) -> None:
        self.bill(self.now)

    def set(self, **values) -> None:
        self.fact = replace(self.fact, **values)
        self.say()

    SCHEDULES: ClassVar[tuple[tuple[str, int], ...]] = SCHEDULES
    ACTIONS: ClassVar[tuple[Action, ...]] = (
        change_price,
        change_quantity,
        add_discount,
        change_status,
        cancel_or_keep,
        cancel_now,
        add_discount,
        cancel_ahead,
        twice_in_a_second,
        pause_or_resume_collection,
        add_item,
        drop_item,
        drop_discounts,
        switch_schedule,
        change_status,
        bill_by_hand,
    )
    PLAIN: ClassVar[tuple[Action, ...]] = (
        change_quantity,
        add_percentage,
        drop_discounts,
        pause_or_resume_collection,
        cancel_or_keep,
        cancel_now,
    )


class MixedIntervals(Contract):
    """Items of several intervals, and of several period ends: some are billed ahead."""

    def begin(self) -> None:
        prices = []
        for interval, every in dict.fromkeys(self.choices.pick(SCHEDULES) for _ in range(3)):
            price = Price(self.choices.pick(CENTS), interval=interval, every=every)
            prices.append(replace(price, next_bill=self.next_of(price, self.anchor)))
        if self.choices.sometimes():
            ahead = prices[0]
            for _ in range(self.choices.number(1, 12)):
                ahead = replace(ahead, next_bill=self.next_of(ahead, ahead.next_bill))
            prices.append(replace(ahead, unit=self.choices.pick(CENTS)))
        self.fact = self.with_prices(prices)

    def with_prices(self, prices: list[Price]) -> Fact:
        interval, every = most_frequent(tuple(prices))
        first = min(price.next_bill for price in prices)
        return replace(self.fact, interval=interval, every=every, prices=tuple(prices), next_bill=first)

    def next_of(self, price: Price, moment: datetime) -> datetime:
        return later(moment, price.interval, price.every, self.anchor.day)

    def moved_on(self, due: datetime) -> Fact:
        return self.with_prices(
            [
                replace(price, next_bill=self.next_of(price, due)) if price.next_bill == due else price
                for price in self.fact.prices
            ]
        )

    def periods_from(self, due: datetime) -> tuple[tuple[datetime, datetime], ...]:
        ends = {self.next_of(price, due) for price in self.fact.prices if price.next_bill == due}
        return tuple((due, end) for end in sorted(ends))

    ACTIONS = Contract.PLAIN


class PartlyUnbilled(MixedIntervals):
    """The same, but the first item is never billed; the others are, each on its own date."""

    def due(self) -> datetime | None:
        return min((price.next_bill for price in self.fact.prices[1:]), default=None)

    def moved_on(self, due: datetime) -> Fact:
        unbilled = self.fact.prices[0]
        return self.with_prices([unbilled, *super().moved_on(due).prices[1:]])

    def periods_from(self, due: datetime) -> tuple[tuple[datetime, datetime], ...]:
        others = [price for price in self.fact.prices[1:] if price.next_bill == due]
        return tuple((due, end) for end in sorted({self.next_of(price, due) for price in others}))

    def leave(self) -> None:
        self.now += self.choices.pick((timedelta(days=20), timedelta(days=70)))
        self.renew(last_is_late=self.choices.sometimes(2))


class ItemTrial(Contract):
    """Items that are tried for a while beside others that are paid."""

    def begin(self) -> None:
        super().begin()
        self.try_item()

    def try_item(self) -> None:
        ends = self.now + self.choices.pick((timedelta(days=10), timedelta(days=45), timedelta(hours=2)))
        ends = self.choices.pick((self.fact.next_bill, ends))
        if ends > self.now:
            tried = Price(self.choices.pick(CENTS), trial=(self.now, ends))
            self.fact = replace(self.fact, prices=(*self.fact.prices[:2], tried))

    def say_tried_item(self) -> None:
        self.try_item()
        self.say()

    ACTIONS = (say_tried_item, *Contract.PLAIN)


class InclusiveTax(Contract):
    """Items whose prices include tax, at rates of their own."""

    def price(self, *kinds: str) -> Price:  # noqa: ARG002 - all of them are plain
        rates = (Decimal(20), Decimal(19), Decimal("7.7"), Decimal(0))
        return Price(self.choices.pick(CENTS), self.choices.pick((1, 3)), tax=self.choices.pick(rates))

    ACTIONS = (*Contract.PLAIN, Contract.change_price, Contract.add_item)


class AutomaticTax(Contract):
    """Prices include the tax that the contract's invoices state, some of it differently rounded."""

    SCHEDULES = (("month", 1),)

    def begin(self) -> None:
        price = Price(self.choices.pick((Decimal(11900), Decimal(2399), Decimal(24900))))
        self.fact = replace(self.fact, prices=(price,), next_bill=self.after(self.anchor), is_taxed=True)
        self.rate = self.choices.pick((20, 19, 0))

    def bill(self, made: datetime, **fields: Any) -> InvoiceLife:
        due = int(self.fact.prices[0].unit)
        tax = int(Fraction(due * self.rate, 100 + self.rate)) + self.choices.pick((0, 0, 1))
        life = super().bill(made, **fields | {"due": due, "tax": tax, "fates": ("paid", "open")})
        self.taxes.append(life.tax)
        return life

    def leave(self) -> None:
        self.now += self.choices.pick((timedelta(days=35), timedelta(days=70)))
        self.renew(last_is_late=self.choices.sometimes(2))

    def change_rate(self) -> None:
        """The customer moves to another country."""
        self.rate = self.choices.pick((25, 7, 20))

    ACTIONS = (change_rate, Contract.cancel_or_keep, change_rate)


class ProductCoupons(Contract):
    """Several products, and coupons for some of them."""

    def begin(self) -> None:
        prices = [Price(self.choices.pick(CENTS), product=product) for product in PRODUCTS]
        self.fact = replace(self.fact, prices=tuple(prices), next_bill=self.after(self.anchor))

    def add_coupon(self) -> None:
        choices = self.choices
        products = choices.pick((PRODUCTS[:1], PRODUCTS[1:], PRODUCTS[2:], ("prod_sofa",)))
        until = choices.pick((None, self.now + timedelta(days=40)))
        off = choices.pick(
            (Deduction(percent=choices.pick(PERCENTS)), Deduction(amount=choices.pick((500, 90))))
        )
        self.set(offs=(*self.fact.offs[-2:], replace(off, products=products, until=until)))

    ACTIONS = (add_coupon, add_coupon, *Contract.PLAIN)


class Credits(Contract):
    """Lines with a negative price beside others."""

    def add_credit(self) -> None:
        credit = Price(-self.choices.pick(CENTS), self.choices.pick((1, 2)))
        self.set(prices=(*self.fact.prices[:2], credit))

    ACTIONS = (add_credit, Contract.add_discount, *Contract.PLAIN, Contract.drop_item)


class ManyChanges(Contract):
    """Dozens of changes within one second; states come back, and the last one may be new."""

    def flap(self) -> None:
        quantities = [self.choices.number(1, 3) for _ in range(self.choices.number(4, 30))]
        self.now += timedelta(seconds=1)
        for quantity in (*quantities, self.choices.pick((5, 2))):
            price = replace(self.fact.prices[0], quantity=quantity)
            self.set(prices=(price, *self.fact.prices[1:]))

    ACTIONS = (flap, flap, *Contract.PLAIN)


class SilentEnd(Contract):
    """Its end is stated, and nothing is told of it after that."""

    def leave(self) -> None:
        if self.fact.cancel_at is None:
            self.cancel_or_keep()

    ACTIONS = (Contract.change_quantity, Contract.add_percentage, Contract.cancel_or_keep)


class Quiet(Contract):
    """Its next bill does not come. What is told after that is of an earlier invoice, or nothing new."""

    SCHEDULES = (("week", 1), ("month", 1))

    def live(self) -> datetime:
        self.fact = replace(self.fact, prices=(Price(CENTS[0]),), next_bill=self.after(self.anchor))
        self.say(rank=CREATED)
        told = self.now
        for _ in range(self.choices.number(0, 2)):
            self.now = told
            self.bill(told, fates=("paid", "partial, void"), ways=("joined", "listed", "names it"))
        for _ in range(self.choices.number(0, 2)):
            told = max(told, self.choices.pick((told + self.choices.pick(GAPS), self.fact.next_bill)))
            self.recorder.record(self.who, told, self.last)
        self.close()
        return max(told, self.now)


class NamedDiscounts(Contract):
    """Discounts that the contract only names: an event of their own says how much they are."""

    def add_named(self) -> None:
        self.number = getattr(self, "number", 0) + 1
        name = f"di_{self.name}_{self.number}"
        off = Deduction(percent=self.choices.pick(PERCENTS), name=name)
        if self.choices.sometimes(2):
            off = Deduction(amount=self.choices.pick((500, 30_000)), name=name)
        gone = self.fact.offs
        self.set(offs=(off,))
        self.apply(off, self.choices.pick((timedelta(0), timedelta(seconds=2))))
        self.take_away(gone)

    def drop_named(self) -> None:
        gone = self.fact.offs
        self.set(offs=())
        self.take_away(gone)

    def take_away(self, gone: tuple[Deduction, ...]) -> None:
        for off in gone:
            self.apply(off, timedelta(seconds=3), deleted=True)

    def apply(self, off: Deduction, late: timedelta, *, deleted: bool = False) -> None:
        applied = AppliedDiscount(
            customer_id=self.who[2],
            subscription_id=self.name,
            discount=discount(replace(off, name=None), off.name),
            deleted=deleted,
        )
        self.recorder.record(self.who, self.now + late, applied, DELETED if deleted else CREATED)

    ACTIONS = (add_named, add_named, drop_named, Contract.change_quantity, Contract.cancel_now)


class OffTheAnchor(Contract):
    """Its next bill is not on the anchor: a shortened first period, or a trial before it."""

    def begin(self) -> None:
        self.fact = replace(self.fact, prices=(self.price(),))
        first = self.now + self.choices.pick((timedelta(days=7), timedelta(hours=9), timedelta(days=20)))
        ahead = self.choices.pick((timedelta(days=9), timedelta(hours=31), timedelta(days=3)))
        if self.fact.interval in ("month", "year") and self.choices.sometimes(2):
            ahead = -(first - self.now) - timedelta(days=4)
        self.anchor = first + ahead
        self.fact = replace(self.fact, next_bill=first)
        if self.choices.sometimes(2):
            self.fact = replace(self.fact, status="trialing", trial_end=first)

    def after(self, moment: datetime) -> datetime:
        if self.anchor > moment:
            return self.anchor
        step = later(self.anchor, self.fact.interval, self.fact.every, self.anchor.day)
        steps = 1
        while step <= moment:
            steps += 1
            step = later(self.anchor, self.fact.interval, self.fact.every * steps, self.anchor.day)
        return step

    ACTIONS = Contract.PLAIN


class Planned(Contract):
    """A schedule says what its items will be in a later phase; of a price it may say the id alone."""

    SCHEDULES = (("month", 1), ("week", 4), ("month", 3))

    def begin(self) -> None:
        self.known: dict[str, Decimal] = {}
        self.fact = replace(
            self.fact, next_bill=self.after(self.anchor), prices=(self.named("old", CENTS[0]),)
        )

    def named(self, name: str, unit: Decimal, **where: Any) -> Price:
        """A price with an id, that an event has named."""
        self.known[name] = unit
        return Price(unit, name=name, **where)

    def upgrade(self) -> None:
        self.set(prices=(self.named("new", CENTS[1]),))

    def leave(self) -> None:
        """A phase from one of the next bills on, in which another price is planned."""
        starts_at = self.fact.next_bill
        for _ in range(self.choices.number(0, 3)):
            starts_at = self.after(starts_at)
        planned = self.choices.pick(
            (
                Price(None, name="old"),
                Price(None, name="new"),
                self.named("gold", CENTS[4]),
                self.named("yearly", CENTS[4], interval="year"),
            )
        )
        status = self.choices.pick(("active", "active", "released"))
        self.tell_phases(planned, starts_at, status)
        if planned.name in self.known and status == "active":
            self.plans = (Plan(starts_at, (replace(planned, unit=self.known[planned.name]),)),)

    def tell_phases(self, planned: Price, starts_at: datetime, status: str) -> None:
        now = tuple(item(self.fact, price) for price in self.fact.prices)
        schedule = Schedule(
            schedule_id=f"sched_{self.name}",
            subscription_id=self.name,
            customer_id=self.who[2],
            currency=self.currency,
            status=status,
            phases=(
                Phase(starts_at=self.facts[0].since, ends_at=starts_at, items=now),
                Phase(starts_at=starts_at, items=(item(self.fact, planned),)),
            ),
        )
        self.recorder.record(self.who, self.now, schedule)

    ACTIONS = (upgrade, Contract.change_quantity)


class Prorated(Contract):
    """Changes within a period are billed on the day of its renewal, or on the day before."""

    def begin(self) -> None:
        self.fact = replace(self.fact, prices=(self.price(),), next_bill=self.after(self.anchor))

    def leave(self) -> None:
        due = self.due()
        before = due and due - self.choices.pick((timedelta(hours=9), timedelta(0), timedelta(seconds=1)))
        if before and before >= self.now:
            self.now = before
            self.bill_by_hand()
            if self.choices.sometimes():
                self.now = due
                self.renew(last_is_late=self.choices.sometimes(2))

    ACTIONS = Contract.PLAIN


class BilledLate(Prorated):
    """The period that ends is billed on the day of the renewal, or on the day before."""

    def bill_by_hand(self) -> None:
        due = self.due()
        begun = self.anchor
        while self.after(begun) < due:
            begun = self.after(begun)
        self.bill(self.now, covers=self.recorder.expected.day(begun), periods=((begun, due),))

    ACTIONS = Contract.PLAIN


class Reactivated(Contract):
    """A contract of an in-house biller that is cancelled, and comes back under its id."""

    def begin(self) -> None:
        self.fact = replace(self.fact, prices=(self.price(),), next_bill=self.after(self.anchor))

    def leave(self) -> None:
        for _ in range(self.choices.number(1, 2)):
            self.now += timedelta(days=1)
            self.fact = replace(self.fact, cancel_at=None, status="canceled", over=True, since=self.now)
            self.say()
            self.now += self.choices.pick((timedelta(hours=1), timedelta(days=4), timedelta(days=60)))
            self.anchor = self.now
            self.set(status="active", over=False, next_bill=self.after(self.now))

    ACTIONS = (Contract.change_price, Contract.change_quantity, Contract.cancel_or_keep)


def reactivated(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """Only an in-house biller's contract comes back under its id."""
    return Reactivated(recorder, ("acme", *who[1:]), currency, start).live()


def couponed(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A coupon on a customer, by the customer's event or one of its own; contracts may have others."""
    choices = recorder.choices
    who = (*who[:2], recorder.name("cus_coupon", who))
    by_customer = choices.sometimes(2)
    offs, now = ((Deduction(percent=choices.pick(PERCENTS), name="di_shared"),), start)
    for number in range(choices.number(1, 3)):
        now += choices.pick((timedelta(hours=1), timedelta(days=5), timedelta(days=33)))
        held = offs if number % 2 == 0 else ()
        recorder.expected.coupons.append(Coupon(who, now, held))
        _tell_coupon(recorder, who, now, offs[0], is_held=bool(held), by_customer=by_customer)
    ends = [CouponedContract(recorder, who, currency, start).live() for _ in range(choices.number(1, 2))]
    return max((now, *ends))


def _tell_coupon(
    recorder: Recorder, who: CustomerKey, now: datetime, off: Deduction, *, is_held: bool, by_customer: bool
) -> None:
    content = discount(replace(off, name=None), off.name)
    if by_customer:
        data: Any = Customer(customer_id=who[2], discounts=(content,) if is_held else ())
    else:
        data = AppliedDiscount(customer_id=who[2], discount=content, deleted=not is_held)
    recorder.record(who, now, data)


class CouponedContract(Contract):
    """A contract with a discount of its own at times, beside its customer's coupon."""

    def begin(self) -> None:
        self.fact = replace(self.fact, prices=(self.price(),), next_bill=self.after(self.anchor))

    ACTIONS = Contract.PLAIN


class Observed:
    """A contract that is only observed, before its next bill is due; its dates are in no zone."""

    def __init__(self, recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> None:
        self.recorder, self.choices = recorder, recorder.choices
        self.who, self.currency, self.now = ("mxmerchant", "", who[2]), currency, start
        self.name = recorder.name("con", self.who)
        self.start = start - self.choices.pick((timedelta(days=40), timedelta(0), timedelta(days=-9)))

    def live(self) -> datetime:
        choices = self.choices
        interval, every = choices.pick((("week", 4), ("once", 1), ("week", 1), ("month", 1)))
        price = Price(choices.pick(CENTS), once=interval == "once")
        anchor_day = choices.pick((None, 31, 30, 15)) if interval == "month" else None
        facts: list[Fact] = []
        for status in self.statuses():
            ahead = choices.number(3, 9)
            fact = Fact(
                since=self.now,
                status=status,
                interval=interval,
                every=every,
                prices=(price,),
                next_bill=(self.now + timedelta(days=ahead)).date(),
                anchor_day=anchor_day,
                declined=choices.sometimes(),
            )
            if status == "deleted":  # nobody observed anything else of it
                fact = replace(facts[-1], since=self.now, status=status, over=True, next_bill=None)
            self.tell(fact)
            if not facts and status == "active":
                fact = replace(fact, since=min(self.now, self.start))
            facts.append(fact)
            price = replace(price, unit=choices.pick(CENTS))
            self.now += self.until_the_next(ahead)
        self.recorder.expected.contracts.append(
            ContractFacts(who=self.who, name=self.name, currency=self.currency, facts=tuple(facts))
        )
        return self.now

    def statuses(self) -> list[str]:
        """Its status at each observation."""
        return [self.choices.pick(("active", "active", "inactive")) for _ in range(self.choices.number(1, 3))]

    def until_the_next(self, ahead: int) -> timedelta:
        """How long it is until it is observed again, of the days until its next bill."""
        return timedelta(days=self.choices.number(0, ahead - 3), hours=1)

    def tell(self, fact: Fact) -> None:
        data = Subscription(
            subscription_id=self.name,
            customer_id=self.who[2],
            status=fact.status,
            currency=self.currency,
            items=tuple(item(fact, price) for price in fact.prices),
            next_bill_on=fact.next_bill,
            anchor_day=fact.anchor_day,
            counts_from=self.start if fact.status == "active" else None,
            declined=fact.declined,
        )
        self.recorder.record(self.who, self.now, data)


class ObservedLate(Observed):
    """The same, observed after days on which it was due: it leaves bills."""

    def until_the_next(self, ahead: int) -> timedelta:
        return timedelta(days=self.choices.number(ahead, 40))


class Vanished(ObservedLate):
    """The same, until a full list no longer holds it; a later one may hold it again."""

    def statuses(self) -> list[str]:
        return ["active", "deleted", "active"][: self.choices.number(2, 3)]


def item(fact: Fact, price: Price) -> Item:
    """A line as the processor tells it."""
    interval, every = ("once", 1) if price.once else schedule_of(price, fact)
    return Item(
        interval=interval,
        every=every,
        quantity=price.quantity,
        unit_amount=price.unit,
        price_id=price.name,
        product_id=price.product,
        metered=price.metered,
        tiers=tuple(Tier(up_to=up, unit_amount=unit, flat_amount=flat) for up, unit, flat in price.tiers),
        tiers_mode=("volume" if price.all_units_in_one_tier else "graduated") if price.tiers else None,
        divide_by=price.packages,
        divide_round="up" if price.packages_round_up else "down",
        inclusive_tax=price.tax,
        next_bill_at=price.next_bill,
        trial_start_at=price.trial and price.trial[0],
        trial_end_at=price.trial and price.trial[1],
    )


def discount(off: Deduction, name: str | None = None) -> Discount:
    """A discount as the processor tells it: by its id alone where an event of its own says the rest."""
    if off.name:
        return Discount(discount_id=off.name)
    duration = "once" if not off.lasting else "repeating" if off.until else "forever"
    return Discount(
        discount_id=name,
        percent_off=off.percent,
        amount_off=off.amount,
        duration=duration,
        ends_at=off.until,
        product_ids=off.products,
    )


def later(moment: datetime, interval: str, every: int, anchor_day: int) -> datetime:
    """A moment one interval on, on the anchor's day of the month."""
    if interval in ("day", "week"):
        return moment + timedelta(days=every * (7 if interval == "week" else 1))
    return moved(moment, every * (12 if interval == "year" else 1), anchor_day)
