"""The figures that a scenario should give, worked out another way than the books do it.

A scenario is what really happened, as its generator knows it: facts in their true order, bills with their
fate, money that moved. Nothing here knows of events, histories or folds: a day is simulated by looking
at what held when it ended, and sums are taken afresh for every question. Source: contract 3.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from zoneinfo import ZoneInfo

CustomerKey = tuple[str, str, str]  # processor, account, customer id


@dataclass(frozen=True)
class Price:
    """One priced line of a contract. `packages` of units are sold whole; tiers are (up to, unit, flat)."""

    unit: Decimal | None
    quantity: int = 1
    metered: bool = False
    once: bool = False
    packages: int | None = None
    packages_round_up: bool = True
    tiers: tuple[tuple[int | None, Decimal, Decimal], ...] = ()
    all_units_in_one_tier: bool = False


@dataclass(frozen=True)
class Deduction:
    """A discount, in force until `until`. `lasting` is False for one that is for a single bill."""

    percent: Decimal | None = None
    amount: int | None = None
    lasting: bool = True
    until: datetime | None = None


@dataclass(frozen=True)
class Fact:
    """What holds of a contract from a moment on."""

    since: datetime
    status: str
    interval: str
    every: int
    prices: tuple[Price, ...]
    offs: tuple[Deduction, ...] = ()
    collecting: bool = True
    next_bill: datetime | date | None = None
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    declined: bool = False
    over: bool = False


@dataclass(frozen=True)
class ContractFacts:
    who: CustomerKey
    name: str
    currency: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class BillFacts:
    """An invoice and what became of it. `covers` is the due date of the period that it bills, if it does."""

    who: CustomerKey
    name: str
    currency: str
    billed_at: datetime
    fate: str
    due: int
    paid: int = 0
    contract: str | None = None
    covers: date | None = None


@dataclass(frozen=True)
class Money:
    """Money that moved: "collected", "refunded" or "disputed"."""

    currency: str
    kind: str
    at: datetime
    cents: int


@dataclass(frozen=True)
class Line:
    """A bill as a list shows it."""

    who: CustomerKey
    day: date
    status: str
    cents: int
    open_cents: int = 0
    later_cents: int = 0


class ExpectedBooks:
    """A scenario's figures."""

    def __init__(self, zone: str, contracts: list, bills: list, money: list) -> None:
        self.zone = ZoneInfo(zone)
        self.contracts: list[ContractFacts] = contracts
        self.bills: list[BillFacts] = bills
        self.money: list[Money] = money

    # Moments and days

    def day(self, moment: datetime) -> date:
        return moment.astimezone(self.zone).date()

    def close_of(self, day: date) -> datetime:
        """The first moment that is no longer in a day."""
        return datetime.combine(day + timedelta(days=1), time(0), self.zone)

    def span(self) -> tuple[date, date]:
        """The first and the last day on which anything happens, with a margin."""
        moments = [f.since for c in self.contracts for f in c.facts]
        moments += [o.until for c in self.contracts for f in c.facts for o in f.offs if o.until]
        moments += [m.at for m in self.money] + [b.billed_at for b in self.bills]
        if not moments:
            return date(2025, 1, 1), date(2025, 1, 31)
        return self.day(min(moments)) - timedelta(days=2), self.day(max(moments)) + timedelta(days=2)

    def currencies(self) -> list[str]:
        return sorted({x.currency for x in (*self.contracts, *self.bills, *self.money)})

    # MRR

    def holding(self, contract: ContractFacts, day: date) -> Fact | None:
        """What holds of a contract when a day ends."""
        close = self.close_of(day)
        ended = [f for f in contract.facts if f.over and f.since < close]
        held = [f for f in contract.facts if f.since < close]
        return ended[0] if ended else held[-1] if held else None

    def counted(self, contract: ContractFacts, day: date) -> Fact | None:
        """The fact that counts in MRR when a day ends, if one does."""
        fact = self.holding(contract, day)
        if fact is None or fact.over or fact.status not in ("active", "past_due") or not fact.collecting:
            return None
        if fact.cancel_at and fact.since < fact.cancel_at < self.close_of(day):
            return None
        return fact if fact.interval != "once" and not all(p.once for p in fact.prices) else None

    def contract_mrr(self, contract: ContractFacts, day: date) -> int:
        fact = self.counted(contract, day)
        if fact is None:
            return 0
        months = {
            "day": Fraction(365, 12),
            "week": Fraction("4.33"),
            "month": Fraction(1),
            "year": Fraction(1, 12),
        }[fact.interval]
        return cents(self.recurring(fact, day) * months / fact.every)

    def bill(self, fact: Fact, day: date) -> int:
        """What a bill of a day asks for."""
        return cents(self.recurring(fact, day))

    def recurring(self, fact: Fact, day: date) -> Fraction:
        """What one interval brings before tax, with the discounts that outlive a day."""
        amount = sum((charge(p) for p in fact.prices if not p.once or fact.interval == "once"), Fraction(0))
        for off in fact.offs:
            if off.lasting and (off.until is None or off.until >= self.close_of(day)):
                amount = amount * (100 - Fraction(off.percent)) / 100 if off.percent else amount
                amount -= off.amount or 0
                amount = max(amount, Fraction(0))
        return amount

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

    def lines(self, currency: str) -> list[Line]:
        """Every bill: the invoices, and the next bills that none was issued for yet."""
        issued = [
            Line(
                who=b.who,
                day=self.day(b.billed_at),
                status=b.fate,
                cents=b.due,
                open_cents=b.due - b.paid if b.fate in ("open", "failed") else 0,
            )
            for b in self.bills
            if b.currency == currency and b.fate not in ("void", "deleted") and b.due
        ]
        return issued + [line for c in self.contracts if c.currency == currency for line in self.coming(c)]

    def coming(self, contract: ContractFacts) -> list[Line]:
        """A contract's next bill, if it has one."""
        ended = [f for f in contract.facts if f.over]
        fact = contract.facts[-1]
        billing = ("active", "past_due", "trialing", "unpaid", "incomplete")
        if ended or fact.status not in billing or not fact.collecting or fact.next_bill is None:
            return []
        due = fact.trial_end if fact.status == "trialing" and fact.trial_end else fact.next_bill
        day = self.day(due) if isinstance(due, datetime) else due
        stop = self.day(fact.cancel_at) if fact.cancel_at else None
        mine = [b for b in self.bills if (b.who[:2], b.contract) == (contract.who[:2], contract.name)]
        billed = any(b.covers and b.covers >= day and b.fate != "deleted" for b in mine)
        amount = self.bill(fact, day)
        if (stop and stop <= day) or billed or not amount:
            return []
        later, again = 0, day
        if fact.interval in ("day", "week"):
            step = timedelta(days=fact.every * (7 if fact.interval == "week" else 1))
            while (again + step).month == day.month and (stop is None or again + step < stop):
                again += step
                later += self.bill(fact, again)
        return [Line(who=contract.who, day=day, status="upcoming", cents=amount, later_cents=later)]

    def month(self, currency: str, year: int, month: int) -> dict:
        """What a month's summary says."""
        listed = [x for x in self.lines(currency) if (x.day.year, x.day.month) == (year, month)]
        counted = [x for x in listed if x.status != "uncollectible"]
        ahead = [x for x in counted if x.status in ("upcoming", "draft")]
        issued = [x for x in counted if x not in ahead]
        cash = dict.fromkeys(("collected", "refunded", "disputed"), 0)
        for moved in self.money:
            on = self.day(moved.at)
            if moved.currency == currency and (on.year, on.month) == (year, month):
                cash[moved.kind] += moved.cents
        return {
            "payments": len(counted),
            "customers": len({x.who for x in counted}),
            "total_cents": sum(x.cents for x in counted),
            "upcoming_cents": sum(x.cents for x in ahead),
            "later_cents": sum(x.later_cents for x in ahead),
            "billed_cents": sum(x.cents for x in issued),
            "open_cents": sum(x.open_cents for x in issued),
            "uncollectible_cents": sum(x.cents for x in listed if x.status == "uncollectible"),
            "bills": len(issued),
            "billed_customers": len({x.who for x in issued}),
            "statuses": sorted((x.day.isoformat(), x.status, x.cents) for x in listed),
            **cash,
        }


def charge(price: Price) -> Fraction:
    """What one interval costs by one price: unit by unit where there are tiers."""
    if price.metered:
        return Fraction(0)
    sold = price.quantity
    if price.packages:
        whole, rest = divmod(price.quantity, price.packages)
        sold = whole + (1 if rest and price.packages_round_up else 0)
    if price.tiers and price.all_units_in_one_tier:
        tier = next(t for t in price.tiers if t[0] is None or t[0] >= sold)
        return Fraction(tier[1]) * sold + Fraction(tier[2])
    if price.tiers:
        total, reached = Fraction(0), {0}
        for unit in range(1, sold + 1):
            number = next(i for i, t in enumerate(price.tiers) if t[0] is None or unit <= t[0])
            total += Fraction(price.tiers[number][1])
            reached.add(number)
        return total + sum(Fraction(price.tiers[i][2]) for i in reached)
    return Fraction(price.unit or 0) * sold


def cents(amount: Fraction) -> int:
    """Whole minor units; a half goes away from zero."""
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(amount.numerator) / Decimal(amount.denominator)).quantize(1, ROUND_HALF_UP))


def kind_of(opening: int, closing: int, had_before: bool) -> str:
    if not opening:
        return "reactivation" if had_before else "new"
    if not closing:
        return "churn"
    return "expansion" if closing > opening else "contraction"
