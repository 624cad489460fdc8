"""The figures that a scenario should give, worked out another way than the books do it.

A scenario is what really happened, as its generator knows it: facts in their true order, bills with their
fate, money that moved. Nothing here knows of events, histories or folds: a day is simulated by looking
at what held when it ended, and sums are taken afresh for every question. Source: contract 3.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import takewhile
from zoneinfo import ZoneInfo

from tests.support.expected_dates import bill_dates
from tests.support.expected_links import CustomerKey, Unlinked, inferred_links
from tests.support.expected_prices import MONTHS, Deduction, Price, cents, charge, net

BILLING = ("active", "past_due", "trialing")  # the statuses in which a contract has a next bill
AHEAD = ("upcoming", "forecast", "draft")  # of bills that are still to come
INTERVALS = tuple(MONTHS)
LATER = datetime(9999, 1, 1, tzinfo=UTC)  # when everything is known


@dataclass(frozen=True)
class Fact:
    """What holds of a contract from a moment on. Its bills fall on the `anchor`, or on the `anchor_day`."""

    since: datetime
    status: str
    interval: str
    every: int
    prices: tuple[Price, ...]
    offs: tuple[Deduction, ...] = ()
    collecting: bool = True
    next_bill: datetime | date | None = None
    anchor: datetime | date | None = None
    anchor_day: int | None = None
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    declined: bool = False
    over: bool = False
    is_taxed: bool = False  # its prices include the tax that its invoices state


@dataclass(frozen=True)
class Tax:
    """The share of a contract's invoice that is tax, known from when the invoice was issued."""

    at: datetime
    share: Fraction


@dataclass(frozen=True)
class Plan:
    """What a contract's lines will be from a moment on, where the price is known."""

    since: datetime
    prices: tuple[Price, ...]
    offs: tuple[Deduction, ...] = ()


@dataclass(frozen=True)
class ContractFacts:
    """A contract: what held of it, the tax on its invoices, and what is planned for it in the end."""

    who: CustomerKey
    name: str
    currency: str
    facts: tuple[Fact, ...]
    taxes: tuple[Tax, ...] = ()
    plans: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class Coupon:
    """The discounts on a customer from a moment on: off their contracts that have none of their own."""

    who: CustomerKey
    since: datetime
    offs: tuple[Deduction, ...]


@dataclass(frozen=True)
class BillFacts:
    """An invoice and what became of it. `covers` is the due date of the period that it bills, if it does.

    `periods` are those that it bills, from one moment to another, if it tells them.
    """

    who: CustomerKey
    name: str
    currency: str
    billed_at: datetime
    fate: str
    due: int
    paid: int = 0
    contract: str | None = None
    covers: date | None = None
    periods: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True)
class Money:
    """Money that moved: "collected", "refunded" or "disputed"; what was taken back is below zero.

    What is collected has a `source`: which invoice or payment it is. An `unlinked` payment is one that might
    have paid an invoice, for all that is known.
    """

    who: CustomerKey
    currency: str
    kind: str
    at: datetime
    cents: int
    source: str | None = None
    unlinked: bool = False


@dataclass(frozen=True)
class FailureFacts:
    """An invoice or payment that could not be collected at first, by the moment of the first failed try."""

    who: CustomerKey
    currency: str
    at: datetime
    recovered: bool


@dataclass(frozen=True)
class Line:
    """A bill as a list shows it."""

    who: CustomerKey
    day: date
    status: str
    cents: int
    open_cents: int = 0
    lost_cents: int = 0
    later: tuple[tuple[date, int], ...] = ()


@dataclass(frozen=True)
class Schedule:
    """The lines of a contract that are billed together; `stated` if the processor states their next bill."""

    interval: str
    every: int
    first: datetime | date
    stated: bool = True


@dataclass(frozen=True)
class Coming:
    """A bill that is still to be issued: stated by the processor, or rolled on from such a one."""

    day: date
    cents: int
    stated: bool


@dataclass
class ExpectedBooks:
    """A scenario's figures. `ignored` is the number of events of the mode that does not count.

    `heard` has the moment at which something was last told of a contract, its invoices or their payments, by
    processor, account and the contract's name.
    """

    zone_name: str
    contracts: list[ContractFacts] = field(default_factory=list)
    coupons: list[Coupon] = field(default_factory=list)
    bills: list[BillFacts] = field(default_factory=list)
    money: list[Money] = field(default_factory=list)
    failures: list[FailureFacts] = field(default_factory=list)
    unlinked_payments: list[Unlinked] = field(default_factory=list)
    unlinked_invoices: list[Unlinked] = field(default_factory=list)
    ignored: int = 0
    heard: dict[tuple[str, str, str], datetime] = field(default_factory=dict)

    # Moments and days

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone_name)

    def day(self, moment: datetime) -> date:
        return moment.astimezone(self.zone).date()

    def close_of(self, day: date) -> datetime:
        """The first moment that is no longer in a day."""
        return datetime.combine(day + timedelta(days=1), time(0), self.zone).astimezone(UTC)

    def changes(self) -> set[datetime]:
        """Every moment at which a contract's MRR may change."""
        facts = [fact for contract in self.contracts for fact in contract.facts]
        moments = {fact.since for fact in facts} | {coupon.since for coupon in self.coupons}
        moments |= {contract.facts[-1].cancel_at for contract in self.contracts}
        moments |= {tax.at for contract in self.contracts for tax in contract.taxes}
        offs = [off for holder in (*facts, *self.coupons) for off in holder.offs]
        moments |= {off.until for off in offs}
        moments |= {moment for fact in facts for price in fact.prices for moment in price.trial or ()}
        return {moment for moment in moments if moment}

    def span(self) -> tuple[date, date]:
        """The first and the last day on which anything happens, with a margin."""
        moments = [*self.changes(), *(m.at for m in self.all_money()), *(b.billed_at for b in self.bills)]
        if not moments:
            return date(2025, 1, 1), date(2025, 1, 31)
        return self.day(min(moments)) - timedelta(days=2), self.day(max(moments)) + timedelta(days=2)

    def currencies(self) -> list[str]:
        return sorted({x.currency for x in (*self.contracts, *self.bills, *self.all_money())})

    # MRR

    def holding(self, contract: ContractFacts, day: date) -> Fact | None:
        """What holds of a contract when a day ends; a stated end is kept where nothing is heard after it."""
        close = self.close_of(day)
        held = [fact for fact in contract.facts if fact.since < close]
        if not held:
            return None
        fact = held[-1]
        ends = fact.cancel_at if fact is contract.facts[-1] else None
        return None if ends and fact.since < ends < close else fact

    def counted(self, contract: ContractFacts, day: date) -> Fact | None:
        """The fact that counts in MRR when a day ends, if one does."""
        fact = self.holding(contract, day)
        if fact is None or fact.over or fact.status not in ("active", "past_due") or not fact.collecting:
            return None
        return fact if fact.interval != "once" and not all(p.once for p in fact.prices) else None

    def contract_mrr(self, contract: ContractFacts, day: date) -> int:
        fact = self.counted(contract, day)
        return cents(self.monthly(contract, fact, day)) if fact else 0

    def monthly(self, contract: ContractFacts, fact: Fact, day: date) -> Fraction:
        """What a month brings before tax when a day ends."""
        return self.gross(contract, fact, day) * (1 - self.tax_share(contract, fact, day))

    def gross(self, contract: ContractFacts, fact: Fact, day: date) -> Fraction:
        """The same with the tax that the contract's invoices state."""
        amounts = [
            (price, self.brings(price, day) * MONTHS[interval] / every)
            for price in fact.prices
            if not price.once
            for interval, every in [schedule_of(price, fact)]
        ]
        months = MONTHS[fact.interval] / fact.every
        offs = self.offs(contract, fact, day)
        return net(amounts, [replace(off, amount=off.amount and off.amount * months) for off in offs])

    def brings(self, price: Price, day: date) -> Fraction:
        """What one interval of a line brings: nothing while it is tried."""
        close = self.close_of(day)
        is_tried = price.trial and price.trial[0] < close <= price.trial[1]
        return Fraction(0) if is_tried else charge(price)

    def offs(
        self, contract: ContractFacts, fact: Fact, day: date, known: datetime | None = None
    ) -> list[Deduction]:
        """The discounts that outlive a day: the contract's own, or else those then known on its customer."""
        close, offs = self.close_of(day), fact.offs
        if not offs:
            held = [c for c in self.coupons if c.who == contract.who and c.since < (known or close)]
            offs = max(held, key=lambda coupon: coupon.since).offs if held else ()
        return [off for off in offs if off.lasting and (off.until is None or off.until >= close)]

    def tax_share(
        self, contract: ContractFacts, fact: Fact, day: date, known: datetime | None = None
    ) -> Fraction:
        """The share of the last invoice issued by then, at the end of a day or later, or of the first one.

        What it changes by one minor unit at most is rounding: then the share before it stays.
        """
        if not fact.is_taxed or not contract.taxes:
            return Fraction(0)
        gross, share = self.gross(contract, fact, day), contract.taxes[0].share
        for tax in contract.taxes[1:]:
            change = cents(gross * (1 - tax.share)) - cents(gross * (1 - share))
            if tax.at < (known or self.close_of(day)) and abs(change) > 1:
                share = tax.share
        return share

    def mrr(self, currency: str, day: date) -> dict:
        """The MRR document of a day, as far as it can be told without the books."""
        schedules: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
        by_customer: dict[CustomerKey, int] = defaultdict(int)
        for contract in self.contracts:
            fact = self.counted(contract, day)
            if fact and contract.currency == currency:
                amount = self.contract_mrr(contract, day)
                schedules[fact.interval, fact.every][0] += 1
                schedules[fact.interval, fact.every][1] += amount
                by_customer[contract.who] += amount
        return {
            "mrr_cents": sum(by_customer.values()),
            "active_contracts": sum(count for count, _ in schedules.values()),
            "customers": sum(amount > 0 for amount in by_customer.values()),
            "by_schedule": {key: tuple(value) for key, value in sorted(schedules.items())},
        }

    def movements(self, currency: str, first: date, last: date) -> dict[date, dict[str, list[int]]]:
        """Day by day: each kind of movement with the customers' amounts, largest day by day change first."""
        level: dict[CustomerKey, int] = defaultdict(int)
        had: set[CustomerKey] = set()
        days: dict[date, dict[str, list[int]]] = {}
        customers = sorted({c.who for c in self.contracts if c.currency == currency})
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            moved: dict[str, list[int]] = defaultdict(list)
            for who in customers:
                theirs = [c for c in self.contracts if c.who == who and c.currency == currency]
                closing = sum(self.contract_mrr(c, day) for c in theirs)
                if change := closing - level[who]:
                    moved[kind_of(level[who], closing, who in had)].append(change)
                    had.add(who)
                level[who] = closing
            days[day] = dict(moved)
        return days

    # Bills

    def lines(self, currency: str, month: tuple[int, int], today: date) -> list[Line]:
        """The bills of a month: the invoices, and those that none was issued for yet."""
        issued = [
            Line(
                who=b.who,
                day=self.day(b.billed_at),
                status=b.fate,
                cents=b.due,
                open_cents=b.due - b.paid if b.fate in ("open", "failed") else 0,
                lost_cents=b.due - b.paid if b.fate == "uncollectible" else 0,
            )
            for b in self.bills
            if b.currency == currency and b.fate not in ("void", "deleted") and b.due
        ]
        contracts = [c for c in self.contracts if c.currency == currency]
        lines = issued + [line for c in contracts for line in (*self.left(c), *self.next(c, month, today))]
        return [line for line in lines if (line.day.year, line.day.month) == month]

    def next(self, contract: ContractFacts, month: tuple[int, int], today: date) -> Iterator[Line]:
        """A contract's first bill of a month, with those after it, for each of its schedules."""
        last = moved_date(month, 1)
        for schedule in self.schedules(contract):
            coming = [
                bill
                for bill in self.coming(contract, schedule, last)
                if (bill.day.year, bill.day.month) == month and self.is_shown(contract, bill, today)
            ]
            if coming:
                bill, *later = coming
                rolled = "forecast" if not bill.stated else "overdue" if bill.day < today else "upcoming"
                yield Line(
                    who=contract.who,
                    day=bill.day,
                    status=rolled,
                    cents=bill.cents,
                    later=tuple((bill.day, bill.cents) for bill in later),
                )

    def is_shown(self, contract: ContractFacts, bill: Coming, today: date) -> bool:
        """Whether a bill may still come: an overdue one was stated, and its contract has not ended since.

        A single bill that is past was paid, if it was not declined.
        """
        fact = contract.facts[-1]
        if bill.day >= today:
            return True
        has_ended = fact.cancel_at and self.day(fact.cancel_at) <= today
        return bill.stated and not has_ended and (fact.interval != "once" or fact.declined)

    def overdue_contracts(self, currency: str, today: date) -> list[str]:
        """The names of contracts with a stated bill of three days ago or earlier, not heard of since."""
        late = today - timedelta(days=3)
        return sorted(
            contract.name
            for contract in self.contracts
            if contract.currency == currency
            and any(
                bill.stated
                and self.is_shown(contract, bill, today)
                and self.day(self.heard[*contract.who[:2], contract.name]) < bill.day
                for schedule in self.schedules(contract)
                for bill in self.coming(contract, schedule, late + timedelta(days=1))
            )
        )

    def schedules(self, contract: ContractFacts) -> list[Schedule]:
        """A contract's schedules, and those that begin with what is planned for it."""
        fact = contract.facts[-1]
        if fact.over or fact.status not in BILLING or not fact.collecting:
            return []
        trial_end = fact.trial_end if fact.status == "trialing" else None
        found = {
            Schedule(*schedule_of(price, fact), trial_end or price.next_bill or fact.next_bill)
            for price in recurring(fact)
            if price.next_bill or fact.next_bill
        }
        for plan in contract.plans:
            known = {(schedule.interval, schedule.every) for schedule in found}
            planned = {schedule_of(price, fact) for price in plan.prices}
            found |= {Schedule(*key, plan.since, stated=False) for key in planned - known}
        return sorted(found, key=str)

    def coming(self, contract: ContractFacts, schedule: Schedule, until: date) -> list[Coming]:
        """The bills of one schedule that are not issued yet, before a day; none of amount 0."""
        fact, first = contract.facts[-1], schedule.first
        stop = min(until, self.day(fact.cancel_at)) if fact.cancel_at else until
        anchor = (fact.anchor, fact.anchor_day) if schedule.stated else (None, None)
        dates = bill_dates(first, schedule.interval, schedule.every, *anchor)
        if isinstance(first, datetime):
            dates = (self.day(moment) for moment in dates)
        bills = [
            Coming(day, self.amount(contract, schedule, day), schedule.stated and number == 0)
            for number, day in enumerate(takewhile(lambda day: day < stop, dates))
        ]
        return [
            bill
            for bill in bills
            if bill.cents and not (bill.stated and self.is_billed(contract, schedule, bill.day))
        ]

    def is_billed(self, contract: ContractFacts, schedule: Schedule, day: date) -> bool:
        """Whether an invoice stands for a schedule's bill of a day: it bills a period from that day on.

        Of a period that ends where no schedule bills, nobody can tell which one it is of.
        """
        mine = [b for b in self.bills if (b.who[:2], b.contract) == (contract.who[:2], contract.name)]
        standing = [b for b in mine if b.covers and b.fate != "deleted"]
        if any(b.covers >= day for b in standing if not b.periods):
            return True
        stated = [each for each in self.schedules(contract) if each.stated]
        for start, end in (period for b in standing for period in b.periods):
            alike = [each for each in stated if self.bills_after(contract, each, start) == end]
            if self.day(start) >= day and schedule in (alike or stated):
                return True
        return False

    def bills_after(self, contract: ContractFacts, schedule: Schedule, start: datetime) -> datetime | None:
        """When a schedule bills again after a moment at which it did."""
        fact = contract.facts[-1]
        dates = bill_dates(start, schedule.interval, schedule.every, fact.anchor, fact.anchor_day)
        return next((moment for moment in dates if moment > start), None)

    def amount(self, contract: ContractFacts, schedule: Schedule, day: date) -> int:
        """What a schedule's bill of a day asks for, by the lines that are planned for that day."""
        fact = contract.facts[-1]
        planned = [plan for plan in contract.plans if self.day(plan.since) <= day]
        held = replace(fact, prices=planned[-1].prices, offs=planned[-1].offs) if planned else fact
        amounts = [
            (price, self.brings(price, day))
            for price in recurring(held)
            if schedule_of(price, held) == (schedule.interval, schedule.every)
            and (planned or schedule.first in (price.next_bill or fact.next_bill, fact.trial_end))
        ]
        share = self.tax_share(contract, held, day, LATER)
        return cents(net(amounts, self.offs(contract, held, day, LATER)) * (1 - share))

    def left(self, contract: ContractFacts) -> Iterator[Line]:
        """The bills of a contract that is only observed: each due day that came between two observations."""
        if contract.who[0] != "mxmerchant":
            return
        for fact, after in zip(contract.facts, contract.facts[1:], strict=False):
            if fact.status == "active":
                for day in bill_dates(fact.next_bill, fact.interval, fact.every, None, fact.anchor_day):
                    if (after.next_bill and day >= after.next_bill) or day > self.day(after.since):
                        break
                    amount = cents(net([(price, charge(price)) for price in fact.prices], ()))
                    if amount:
                        yield Line(who=contract.who, day=day, status="billed", cents=amount)

    def month(self, currency: str, year: int, month: int, today: date) -> dict:
        """What a month's summary says, for whoever reads it on a day."""
        listed = self.lines(currency, (year, month), today)
        counted = [x for x in listed if x.status != "uncollectible"]
        ahead = [x for x in counted if x.status in AHEAD]
        overdue = [x for x in counted if x.status == "overdue"]
        issued = [x for x in counted if x not in ahead and x not in overdue]
        return {
            "payments": len(counted),
            "customers": len({x.who for x in counted}),
            "total_cents": sum(x.cents for x in counted),
            "upcoming_cents": sum(x.cents for x in ahead),
            "overdue_cents": sum(x.cents for x in overdue),
            "later_cents": sum(c for x in counted for _, c in x.later),
            "later_bills": sum(len(x.later) for x in counted),
            "billed_cents": sum(x.cents for x in issued),
            "open_cents": sum(x.open_cents for x in issued),
            "uncollectible_cents": sum(x.lost_cents for x in listed),
            "bills": len(issued),
            "billed_customers": len({x.who for x in issued}),
            "who": {x.who for x in counted},
            "statuses": sorted((x.day.isoformat(), x.status, x.cents) for x in listed),
            **self.cash(currency, f"{year:04d}-{month:02d}"),
        }

    def forecast(self, currency: str, months: list[tuple[int, int]], today: date) -> dict:
        """What some months bring altogether, later bills of an interval too."""
        parts = [self.month(currency, *month, today) for month in months]
        upcoming = sum(part["upcoming_cents"] + part["later_cents"] for part in parts)
        billed = sum(part["billed_cents"] for part in parts)
        return {
            "billed_cents": billed,
            "upcoming_cents": upcoming,
            "total_cents": billed + upcoming + sum(part["overdue_cents"] for part in parts),
            "customers": len({who for part in parts for who in part["who"]}),
            "bills": sum(part["payments"] + part["later_bills"] for part in parts),
        }

    def upcoming(self, currency: str, first: date, last: date) -> dict:
        """What is stated to come between two days, and what rolling on adds."""
        drafts = [
            self.day(b.billed_at)
            for b in self.bills
            if b.currency == currency and b.fate == "draft" and b.due
        ]
        bills = [
            bill
            for contract in self.contracts
            if contract.currency == currency
            for schedule in self.schedules(contract)
            for bill in self.coming(contract, schedule, last + timedelta(days=1))
            if bill.day >= first
        ]
        rolled = [bill.cents for bill in bills if not bill.stated]
        return {
            "payments_count": sum(bill.stated for bill in bills) + sum(first <= d <= last for d in drafts),
            "forecast_cents": sum(rolled),
            "forecast_count": len(rolled),
        }

    # Money

    def links(self) -> dict[Unlinked, Unlinked]:
        """The invoices of the payments that no statement links."""
        return inferred_links(self.unlinked_payments, self.unlinked_invoices)

    def alone(self) -> list[Unlinked]:
        """The payments that no statement links, and nothing else does."""
        links = self.links()
        return [payment for payment in self.unlinked_payments if payment not in links]

    def all_money(self) -> list[Money]:
        """All money that moved, with that of payments which count by themselves."""
        return self.money + [
            Money(
                payment.who,
                payment.currency,
                "collected",
                payment.moments[0],
                payment.cents,
                source=payment.name,
                unlinked=payment.who[0] == "stripe",
            )
            for payment in self.alone()
        ]

    def cash(self, currency: str, period: str) -> dict[str, int]:
        """What was collected, refunded and lost in disputes on a day ("2025-11-13") or in a month."""
        cash = dict.fromkeys(("collected", "refunded", "disputed"), 0)
        for moved in self.all_money():
            if moved.currency == currency and self.day(moved.at).isoformat().startswith(period):
                cash[moved.kind] += moved.cents
        return cash

    def collected(self) -> list[list[Money]]:
        """What was collected by each invoice and payment of which something was kept."""
        by_source: dict[tuple[CustomerKey, str], list[Money]] = defaultdict(list)
        for moved in self.all_money():
            if moved.source:
                by_source[moved.who, moved.source].append(moved)
        return [parts for parts in by_source.values() if sum(part.cents for part in parts) > 0]

    def orders(self) -> Counter[tuple[CustomerKey, str, str, int]]:
        """Every (customer, currency, day, cents) of what was collected in the end.

        The day is the first one since which something always was.
        """
        return Counter(
            (
                parts[0].who,
                parts[0].currency,
                self._first_kept(parts).isoformat(),
                sum(part.cents for part in parts),
            )
            for parts in self.collected()
        )

    def _first_kept(self, parts: list[Money]) -> date:
        """The first day at whose end, and on all days since, some of the money was there."""
        days = sorted({self.day(part.at) for part in parts})
        left = {day: sum(part.cents for part in parts if self.day(part.at) <= day) for day in days}
        last_empty = max((day for day in days if not left[day]), default=date.min)
        return next(day for day in days if day > last_empty)

    def brought(self) -> Counter[tuple[CustomerKey, str]]:
        """What all payments of each customer brought, in each currency: less what went back of them."""
        brought: Counter[tuple[CustomerKey, str]] = Counter()
        for moved in self.all_money():
            brought[moved.who, moved.currency] += moved.cents if moved.kind == "collected" else -moved.cents
        return brought

    def failed(self) -> Counter[tuple[str, str, str, bool]]:
        """How many failures there are of each account, currency, day of the first try, and outcome."""
        return Counter(
            (each.who[1], each.currency, self.day(each.at).isoformat(), each.recovered)
            for each in self.failures
        )

    def unlinked(self, currency: str) -> int:
        """How many payments count by themselves that might have paid an invoice."""
        return sum(parts[0].unlinked and parts[0].currency == currency for parts in self.collected())


def recurring(fact: Fact) -> list[Price]:
    """The lines that are billed again, or all of them where none is."""
    return [price for price in fact.prices if not price.once] or list(fact.prices)


def schedule_of(price: Price, fact: Fact) -> tuple[str, int]:
    """The (interval, every) of a line: its own, or its contract's."""
    return (price.interval, price.every) if price.interval else (fact.interval, fact.every)


def most_frequent(prices: tuple[Price, ...]) -> tuple[str, int]:
    """The (interval, every) of the line that is billed most often."""
    found = {(price.interval, price.every) for price in prices if price.interval}
    return min(found, key=lambda s: (-MONTHS[s[0]] / s[1], INTERVALS.index(s[0])))


def moved_date(month: tuple[int, int], months: int) -> date:
    """The first day of a month some months on."""
    year, number = divmod(month[0] * 12 + month[1] - 1 + months, 12)
    return date(year, number + 1, 1)


def kind_of(opening: int, closing: int, had_before: bool) -> str:
    if not opening:
        return "reactivation" if had_before else "new"
    if not closing:
        return "churn"
    return "expansion" if closing > opening else "contraction"
