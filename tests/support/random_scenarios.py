"""Random scenarios: what happened to customers, contracts, bills and money, and the events that tell it.

Each scenario keeps two accounts. Expected books get the facts, in the order in which they happened. Events
are as handlers make them, with ids that say nothing of their order: some facts are told twice, some late,
several in one second.
"""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

from hypothesis import strategies as st
from msgspec import json, structs

from service.core.events import (
    CREATED,
    DELETED,
    INVOICE_RANK,
    UPDATED,
    Customer,
    Data,
    Discount,
    Dispute,
    Event,
    Invoice,
    InvoicePayment,
    Item,
    Payment,
    Refund,
    Subscription,
    Tier,
)
from tests.support.expected_books import (
    BillFacts,
    ContractFacts,
    CustomerKey,
    Deduction,
    ExpectedBooks,
    Fact,
    Money,
    Price,
)

ZONES = ("UTC", "America/New_York", "Asia/Tokyo", "Pacific/Auckland")
CURRENCIES = ("usd", "eur", "jpy")
SCHEDULES = (("month", 1), ("week", 1), ("week", 4), ("week", 10), ("month", 3), ("year", 1), ("day", 30))
STARTS = tuple(
    datetime(2025, month, day, hour, minute, tzinfo=UTC)
    for month, day, hour, minute in (
        (1, 15, 10, 0),
        (1, 31, 23, 45),
        (2, 28, 4, 30),
        (3, 30, 12, 0),
        (5, 1, 0, 10),
    )
)
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


@dataclass(frozen=True)
class Scenario:
    """What happened (`expected`), the events that tell it, in order, and the story for whoever debugs it."""

    zone: str
    expected: ExpectedBooks
    events: tuple[Event, ...]
    story: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join((f"A scenario in {self.zone}:", *self.story))


class Choices:
    """What is drawn, in words. The first option is the simplest, and what a failure shrinks to."""

    def __init__(self, draw) -> None:
        self._draw = draw

    def pick(self, options: Sequence):
        return options[self._draw(st.integers(0, len(options) - 1))]

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def sometimes(self, out_of: int = 3) -> bool:
        return self._draw(st.integers(0, out_of - 1)) == out_of - 1


class Recorder:
    """Records what happens, and the events that tell it."""

    def __init__(self, choices: Choices, zone: str) -> None:
        self.choices = choices
        self.expected = ExpectedBooks(zone, [], [], [])
        self.events: list[Event] = []
        self._count: dict[str, int] = {}

    def name(self, kind: str, who: CustomerKey) -> str:
        """An id: unique within processor and account, and the same in another."""
        scope = f"{kind}|{who[0]}|{who[1]}"
        self._count[scope] = self._count.get(scope, 0) + 1
        return f"{kind}_{self._count[scope]}"

    def record(self, who: CustomerKey, when: datetime, data: Data, rank: int = UPDATED, **fields) -> None:
        number = len(self.events)
        self.events.append(
            Event(
                processor=who[0],
                account=who[1],
                event_id=f"evt_{sha256(b'%d' % number).hexdigest()[:6]}_{number}",
                occurred_at=when,
                rank=rank,
                data=data,
                **fields,
            )
        )

    def scenario(self) -> Scenario:
        events = sorted(self.events, key=lambda event: event.occurred_at)
        return Scenario(
            zone=str(self.expected.zone),
            expected=self.expected,
            events=tuple(events),
            story=tuple(map(_sentence, events)),
        )


@st.composite
def scenarios(draw) -> Scenario:
    """One to three customers, with their contracts, bills and payments."""
    choices = Choices(draw)
    recorder = Recorder(choices, choices.pick(ZONES))
    for number in range(choices.number(1, 3)):
        who = (
            choices.pick(("stripe", "stripe", "acme")),
            choices.pick(("", "", "acct_b")),
            f"cus_{number + 1 if choices.sometimes(2) else 1}",
        )
        add_customer(recorder, who)
    return recorder.scenario()


def add_customer(recorder: Recorder, who: CustomerKey) -> None:
    choices = recorder.choices
    currency = choices.pick(CURRENCIES)
    start = choices.pick(STARTS)
    recorder.record(
        who, start, Customer(customer_id=who[2], name=choices.pick((None, "Avery", "Blake"))), CREATED
    )
    for _ in range(choices.pick((1, 2, 3, 2, 0))):
        if choices.sometimes(5):
            end = _Observed(recorder, (("mxmerchant", "", who[2])), currency, start).live()
        else:
            end = _Contract(recorder, who, currency, start).live()
        start = start + choices.pick(GAPS) if choices.sometimes() else end + choices.pick(GAPS)
        currency = choices.pick(CURRENCIES) if choices.sometimes(6) else currency
    for _ in range(choices.pick((0, 0, 1, 2))):
        _standalone(recorder, who, choices.pick(CURRENCIES), start + choices.pick(GAPS))
    if choices.sometimes(4):
        _bill(recorder, who, currency, start + choices.pick(GAPS))


class _Contract:
    """A subscription as Stripe would run it: told whole at each change, renewed at each period's end."""

    def __init__(self, recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> None:
        self.recorder, self.choices, self.who, self.currency = recorder, recorder.choices, who, currency
        self.name = recorder.name("sub", who)
        self.now = self.anchor = start
        interval, every = self.choices.pick(SCHEDULES)
        self.fact = Fact(since=start, status="active", interval=interval, every=every, prices=(self.price(),))
        self.facts: list[Fact] = []
        self.last: Subscription | None = None
        self.last_at, self.last_is_chained = start, True

    def live(self) -> datetime:
        self.fact = replace(self.fact, next_bill=self.after(self.anchor))
        if self.choices.sometimes(4):
            ends = self.now + self.choices.pick((timedelta(days=14), timedelta(days=30)))
            self.fact = replace(self.fact, status="trialing", trial_end=ends, next_bill=ends)
        elif self.choices.sometimes(6):
            self.fact = replace(self.fact, status="incomplete")
        self.say(rank=CREATED)
        if self.fact.status == "active" and self.choices.sometimes(2):
            _bill(self.recorder, self.who, self.currency, self.now, contract=self.name)
        for _ in range(self.choices.number(1, 8)):
            self.now += self.choices.pick(GAPS)
            self.renew()
            if self.fact.over:
                break
            self.choices.pick(self.ACTIONS)(self)
            if self.fact.over:
                break
        if not self.fact.over and self.choices.sometimes(3):
            self.now += timedelta(days=20)
            self.renew(last_is_late=True)
        self.recorder.expected.contracts.append(
            ContractFacts(who=self.who, name=self.name, currency=self.currency, facts=tuple(self.facts))
        )
        return self.now

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
            items=tuple(_item(fact, price) for price in fact.prices),
            discounts=tuple(map(_discount, fact.offs)),
            next_bill_at=fact.next_bill,
            trial_end_at=fact.trial_end,
            anchor_at=self.anchor,
            cancel_at=fact.cancel_at,
            ended_at=fact.since if fact.over else None,
            collection_paused=not fact.collecting,
        )

    # Time going by

    def after(self, moment: datetime) -> datetime:
        """The end of the period that begins at a moment."""
        return _later(moment, self.fact.interval, self.fact.every, self.anchor.day)

    def due(self) -> datetime | None:
        if self.fact.status == "trialing":
            return self.fact.trial_end
        return self.fact.next_bill if self.fact.status in ("active", "past_due") else None

    def renew(self, *, last_is_late: bool = False) -> None:
        """Bill the periods that ended until now, the last two of them; end when the cancellation comes."""
        until, stop = self.now, self.fact.cancel_at
        dues: list[datetime] = []
        while (due := self.due()) and due <= until and not (stop and stop <= due):
            dues.append(due)
            status = "active" if self.fact.status == "trialing" else self.fact.status
            self.fact = replace(self.fact, status=status, trial_end=None, next_bill=self.after(due))
        self.fact = self.facts[-1]
        for due in dues[-2:]:
            self.now = due
            is_late = last_is_late and due == dues[-1]
            self.invoice_of(due)
            if is_late:
                return
            status = "active" if self.fact.status == "trialing" else self.fact.status
            self.fact = replace(self.fact, status=status, trial_end=None, next_bill=self.after(due))
            self.say()
        self.now = until
        if stop and stop <= until:
            self.now = stop
            self.end()

    def invoice_of(self, due: datetime) -> None:
        day = self.recorder.expected.day(due)
        fates = ("paused",) if not self.fact.collecting else None
        _bill(self.recorder, self.who, self.currency, due, contract=self.name, covers=day, fates=fates)

    def end(self) -> None:
        """It is over. That may be told late, and what was told before it may seem to come after it.

        Only Stripe's contracts stay ended then.
        """
        late = self.choices.pick((timedelta(0), timedelta(days=2), timedelta(seconds=2), timedelta(days=2)))
        alive = self.last
        self.fact = replace(self.fact, status="canceled", over=True, since=self.now)
        self.say(rank=DELETED, late=late)
        if self.choices.sometimes(3) and alive and self.who[0] == "stripe":
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

    def twice_in_a_second(self) -> None:
        """Two or three changes without a moment between them."""
        self.change_price()
        self.change_quantity()
        if self.choices.sometimes(2):
            self.pause_or_resume_collection()

    def bill_by_hand(self) -> None:
        due = self.due()
        if due and self.now + timedelta(days=2) < due:
            _bill(self.recorder, self.who, self.currency, self.now, contract=self.name)

    def set(self, **values) -> None:
        self.fact = replace(self.fact, **values)
        self.say()

    ACTIONS = (
        change_price,
        change_quantity,
        add_discount,
        change_status,
        cancel_or_keep,
        cancel_now,
        add_discount,
        twice_in_a_second,
        pause_or_resume_collection,
        add_item,
        drop_item,
        drop_discounts,
        switch_schedule,
        change_status,
        bill_by_hand,
    )


class _Observed:
    """A contract that is only observed: it has no events of its own, and its dates are in no zone."""

    def __init__(self, recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> None:
        self.recorder, self.choices = recorder, recorder.choices
        self.who, self.currency, self.now = who, currency, start
        self.name = recorder.name("con", who)
        self.start = start - self.choices.pick((timedelta(days=40), timedelta(0), timedelta(days=-9)))

    def live(self) -> datetime:
        choices = self.choices
        interval, every = choices.pick((("week", 4), ("once", 1), ("week", 1)))
        price = Price(choices.pick(CENTS), once=interval == "once")
        facts: list[Fact] = []
        for _ in range(choices.number(1, 3)):
            status = choices.pick(("active", "active", "inactive"))
            fact = Fact(
                since=self.now,
                status=status,
                interval=interval,
                every=every,
                prices=(price,),
                next_bill=(self.now + timedelta(days=choices.number(1, 9))).date(),
                declined=choices.sometimes(),
            )
            self.tell(fact)
            if not facts and status == "active":
                fact = replace(fact, since=min(self.now, self.start))
            facts.append(fact)
            price = replace(price, unit=choices.pick(CENTS))
            self.now += timedelta(days=choices.number(1, 40))
        self.recorder.expected.contracts.append(
            ContractFacts(who=self.who, name=self.name, currency=self.currency, facts=tuple(facts))
        )
        return self.now

    def tell(self, fact: Fact) -> None:
        data = Subscription(
            subscription_id=self.name,
            customer_id=self.who[2],
            status=fact.status,
            currency=self.currency,
            items=tuple(_item(fact, price) for price in fact.prices),
            next_bill_on=fact.next_bill,
            counts_from=self.start if fact.status == "active" else None,
            declined=fact.declined,
        )
        self.recorder.record(self.who, self.now, data)


def _bill(
    recorder: Recorder,
    who: CustomerKey,
    currency: str,
    made: datetime,
    *,
    contract: str | None = None,
    covers: date | None = None,
    fates: Sequence[str] | None = None,
) -> None:
    """An invoice from its making to its fate, and the payments of it."""
    fate = recorder.choices.pick(fates or FATES)
    due = 0 if fate == "zero" else recorder.choices.pick((24_900, 24_900, 999, 1))
    bill = _Invoice(recorder, who, currency, made, due, contract)
    bill.live(fate)
    recorder.expected.bills.append(
        BillFacts(
            who,
            bill.invoice.invoice_id,
            currency,
            bill.billed_at,
            bill.final,
            due,
            bill.paid,
            contract,
            covers,
        )
    )


class _Invoice:
    """An invoice as Stripe would run it: a draft, then open, then what its fate says."""

    def __init__(
        self,
        recorder: Recorder,
        who: CustomerKey,
        currency: str,
        made: datetime,
        due: int,
        contract: str | None,
    ) -> None:
        self.recorder, self.choices = recorder, recorder.choices
        self.who, self.currency, self.due = who, currency, due
        self.billed_at = self.made = made
        self.final, self.paid = "draft", 0
        self.invoice = Invoice(
            invoice_id=recorder.name("in", who),
            status="draft",
            currency=currency,
            amount_due=due,
            amount_remaining=due,
            customer_id=who[2],
            subscription_id=contract,
            created_at=made,
        )

    def tell(self, when: datetime, status: str, *, twice: bool = False, **fields) -> None:
        self.invoice = structs.replace(self.invoice, **{"payment_failed": False, "status": status, **fields})
        for _ in range(2 if twice else 1):
            self.recorder.record(self.who, when, self.invoice, INVOICE_RANK[status])

    def live(self, fate: str) -> None:
        self.tell(self.made, "draft")
        issued = self.made + self.choices.pick((timedelta(0), timedelta(hours=1), timedelta(hours=26)))
        if fate == "deleted":
            self.final = "deleted"
            self.tell(issued, "deleted")
        elif fate not in ("draft", "paused"):
            self.final, self.billed_at = "open", issued
            self.tell(issued, "open", finalized_at=issued)
            self.collect(fate, issued)

    def collect(self, fate: str, issued: datetime) -> None:
        wait = self.choices.pick((timedelta(0), timedelta(seconds=3), timedelta(days=2), timedelta(days=33)))
        moment = issued + wait
        if "failed" in fate:
            self.final = "failed"
            self.tell(issued, "open", payment_failed=True)
        if "partial" in fate and self.due > 1:
            part_at = issued + timedelta(seconds=2)
            moment = max(moment, part_at + timedelta(seconds=1))
            self.paid = self.due // 3
            self.tell(part_at, "open", amount_paid=self.paid, amount_remaining=self.due - self.paid)
            self.recorder.expected.money.append(Money(self.currency, "collected", part_at, self.paid))
        if "uncollectible" in fate:
            self.final = "uncollectible"
            self.tell(moment, "uncollectible")
            moment += timedelta(days=1)
        if fate == "void":
            self.final = "void"
            self.tell(moment, "void")
        if "paid" in fate:
            self.pay(moment)
        if fate == "zero":
            self.final = "paid"
            self.tell(issued, "paid", twice=True, paid_at=issued)

    def pay(self, moment: datetime) -> None:
        """What is left is paid; the payment is told beside it, in one of several ways."""
        choices, cents = self.choices, self.due - self.paid
        payment_id = self.recorder.name("pi", self.who)
        way = choices.pick(("listed", "joined", "names it", "joined", "for some invoice", "never told"))
        late = choices.pick((timedelta(0), timedelta(hours=30), timedelta(seconds=2), timedelta(hours=30)))
        self.tell(
            moment + late,
            "paid",
            twice=choices.sometimes(2),
            amount_paid=self.due,
            amount_remaining=0,
            paid_at=moment,
            payment_ids=(payment_id,) if way == "listed" else (),
        )
        self.final, self.paid = "paid", self.due
        self.recorder.expected.money.append(Money(self.currency, "collected", moment, cents))
        if way == "joined":
            joined = InvoicePayment(invoice_id=self.invoice.invoice_id, payment_id=payment_id)
            self.recorder.record(self.who, moment, joined)
        if way != "never told":
            payment = Payment(
                payment_id=payment_id,
                status="succeeded",
                currency=self.currency,
                amount=cents,
                customer_id=self.who[2],
                invoice_id=self.invoice.invoice_id if way == "names it" else None,
                for_invoice=way == "for some invoice",
            )
            self.recorder.record(self.who, moment, payment)
            _given_back(self.recorder, self.who, payment, moment)


FATES = (
    "paid",
    "paid",
    "open",
    "failed",
    "failed, paid",
    "partial",
    "partial, paid",
    "uncollectible",
    "uncollectible, paid",
    "void",
    "draft",
    "deleted",
    "zero",
)


def _standalone(recorder: Recorder, who: CustomerKey, currency: str, moment: datetime) -> None:
    """A payment that belongs to no invoice."""
    choices = recorder.choices
    payment = Payment(
        payment_id=recorder.name("pi", who),
        status="succeeded",
        currency=currency,
        amount=choices.pick((5_000, 10_000)),
        customer_id=who[2],
    )
    fate = choices.pick(("told", "told", "twice", "after a failure", "failed", "unconfirmed", "confirmed"))
    if fate in ("failed", "after a failure"):
        recorder.record(who, moment, structs.replace(payment, status="failed"), CREATED)
    if fate in ("unconfirmed", "confirmed"):
        waiting = structs.replace(payment, awaits_confirmation=True)
        recorder.record(who, moment, waiting, trust="unsigned")
    if fate in ("failed", "unconfirmed"):
        return
    recorder.record(who, moment, payment, trust="fetched" if fate == "confirmed" else "signed")
    if fate == "twice":
        recorder.record(who, moment + timedelta(seconds=1), payment)
    recorder.expected.money.append(Money(currency, "collected", moment, payment.amount))
    _given_back(recorder, who, payment, moment)


def _given_back(recorder: Recorder, who: CustomerKey, payment: Payment, paid: datetime) -> None:
    """Refunds and disputes of a payment. Refunds are told by themselves, by their charge, or by both."""
    choices, currency = recorder.choices, payment.currency
    told_by = choices.pick(("both", "refund", "charge"))
    moment, refunded, held = paid, 0, 0
    for _ in range(choices.pick((0, 0, 0, 1, 2))):
        moment += choices.pick((timedelta(0), timedelta(seconds=1), timedelta(days=3), timedelta(days=35)))
        amount = choices.pick(((payment.amount - refunded) // 2, payment.amount - refunded))
        if not amount:
            break
        outcome = "at once" if told_by == "charge" else choices.pick(("at once", "pending", "failed"))
        refund = Refund(
            refund_id=recorder.name("re", who),
            status="succeeded" if outcome == "at once" else "pending",
            currency=currency,
            amount=amount,
            created_at=moment,
            payment_id=payment.payment_id,
        )
        held = refunded + amount
        if told_by != "refund":
            after = structs.replace(payment, amount_refunded=held, paid_at=paid)
            recorder.record(who, moment, after, DELETED)
        if told_by != "charge":
            recorder.record(who, moment, refund, CREATED)
            if outcome != "at once":
                status = "succeeded" if outcome == "pending" else "failed"
                later = moment + choices.pick((timedelta(0), timedelta(days=2)))
                recorder.record(
                    who, later, structs.replace(refund, status=status), 1 if status == "succeeded" else 2
                )
        if outcome != "failed":
            refunded += amount
            recorder.expected.money.append(Money(currency, "refunded", moment, amount))
    if choices.sometimes(5):
        _disputed(recorder, who, payment, moment + timedelta(days=1))


def _disputed(recorder: Recorder, who: CustomerKey, payment: Payment, moment: datetime) -> None:
    name, fate = recorder.name("dp", who), recorder.choices.pick(("lost", "won", "under way"))

    def tell(when: datetime, status: str, rank: int) -> None:
        data = Dispute(
            dispute_id=name,
            status=status,
            currency=payment.currency,
            amount=payment.amount,
            payment_id=payment.payment_id,
        )
        recorder.record(who, when, data, rank)

    tell(moment, "needs_response", CREATED)
    if fate != "under way":
        closed = moment + timedelta(days=20)
        tell(closed, fate, UPDATED)
        tell(closed, fate, DELETED)
        if fate == "lost":
            recorder.expected.money.append(Money(payment.currency, "disputed", closed, payment.amount))


def _item(fact: Fact, price: Price) -> Item:
    return Item(
        interval="once" if price.once else fact.interval,
        every=1 if price.once else fact.every,
        quantity=price.quantity,
        unit_amount=price.unit,
        metered=price.metered,
        tiers=tuple(Tier(up_to=up, unit_amount=unit, flat_amount=flat) for up, unit, flat in price.tiers),
        tiers_mode=("volume" if price.all_units_in_one_tier else "graduated") if price.tiers else None,
        divide_by=price.packages,
        divide_round="up" if price.packages_round_up else "down",
    )


def _discount(off: Deduction) -> Discount:
    duration = "once" if not off.lasting else "repeating" if off.until else "forever"
    return Discount(percent_off=off.percent, amount_off=off.amount, duration=duration, ends_at=off.until)


def _later(moment: datetime, interval: str, every: int, anchor_day: int) -> datetime:
    if interval in ("day", "week"):
        return moment + timedelta(days=every * (7 if interval == "week" else 1))
    months = moment.month - 1 + every * (12 if interval == "year" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    last = calendar.monthrange(year, month)[1]
    return moment.replace(year=year, month=month, day=min(anchor_day, last))


def _sentence(event: Event) -> str:
    where = f"{event.processor}{'/' + event.account if event.account else ''}"
    before = " (told what was before)" if event.before else ""
    return (
        f"  {event.occurred_at:%Y-%m-%d %H:%M:%S} {where} {event.event_id} {event.type} rank {event.rank}"
        f" {json.encode(event.data).decode()}{before}"
    )
