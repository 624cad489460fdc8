"""Invoices and payments, from their making to their fate, as a processor would tell them."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction

from msgspec import structs

from service.core.events import (
    CREATED,
    DELETED,
    INVOICE_RANK,
    UPDATED,
    Dispute,
    Invoice,
    InvoicePayment,
    Payment,
    Period,
    Refund,
)
from tests.support.expected_books import BillFacts, CustomerKey, FailureFacts, Money, Tax
from tests.support.expected_links import Unlinked
from tests.support.random_recorder import Recorder

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
    "partial, uncollectible",
    "partial, void",
    "void",
    "draft",
    "deleted",
    "zero",
)
STATED = ("listed", "joined", "names it", "joined", "for some invoice", "never told")
ZERO = timedelta(0)


def bill(
    recorder: Recorder,
    who: CustomerKey,
    currency: str,
    made: datetime,
    *,
    contract: str | None = None,
    covers: date | None = None,
    periods: tuple[tuple[datetime, datetime], ...] = (),
    fates: Sequence[str] | None = None,
    ways: Sequence[str] = STATED,
    due: int | None = None,
    tax: int | None = None,
) -> "InvoiceLife":
    """An invoice from its making to its fate, and the payments of it.

    One of a contract that covers no period bills changes within one. It may tell the `periods` that it bills.
    """
    fate = recorder.choices.pick(fates or FATES)
    cents = 0 if fate == "zero" else due or recorder.choices.pick((24_900, 24_900, 999, 1))
    life = InvoiceLife(recorder, who, currency, made, cents, contract, tax)
    if contract and not covers:
        life.invoice = structs.replace(life.invoice, within_period=True)
    stated = tuple(Period(starts_at=start, ends_at=end) for start, end in periods)
    life.invoice = structs.replace(life.invoice, periods=stated)
    life.live(fate, ways)
    life.close(contract, covers, periods)
    return life


class InvoiceLife:
    """An invoice as Stripe would run it: a draft, then open, then what its fate says."""

    def __init__(
        self,
        recorder: Recorder,
        who: CustomerKey,
        currency: str,
        made: datetime,
        due: int,
        contract: str | None = None,
        tax: int | None = None,
    ) -> None:
        self.recorder, self.choices = recorder, recorder.choices
        self.who, self.currency, self.due = who, currency, due
        self.billed_at = self.made = made
        self.final, self.paid = "draft", 0
        self.failed_at: datetime | None = None
        self.invoice = Invoice(
            invoice_id=recorder.name("in", who),
            status="draft",
            currency=currency,
            amount_due=due,
            amount_remaining=due,
            customer_id=who[2],
            subscription_id=contract,
            created_at=made,
            taxed_amount=None if tax is None else due,
            inclusive_tax=tax,
        )

    @property
    def tax(self) -> Tax:
        return Tax(self.billed_at, Fraction(self.invoice.inclusive_tax or 0, self.due))

    def tell(self, when: datetime, status: str, *, twice: bool = False, **fields) -> None:
        self.invoice = structs.replace(self.invoice, **{"payment_failed": False, "status": status, **fields})
        for _ in range(2 if twice else 1):
            self.recorder.record(self.who, when, self.invoice, INVOICE_RANK[status])

    def live(self, fate: str, ways: Sequence[str] = STATED) -> None:
        self.tell(self.made, "draft")
        issued = self.made + self.choices.pick((ZERO, timedelta(hours=1), timedelta(hours=26)))
        if fate == "deleted":
            self.final = "deleted"
            self.tell(issued, "deleted")
        elif fate not in ("draft", "paused"):
            self.final, self.billed_at = "open", issued
            self.tell(issued, "open", finalized_at=issued)
            self.collect(fate, issued, ways)

    def collect(self, fate: str, issued: datetime, ways: Sequence[str]) -> None:
        wait = self.choices.pick((ZERO, timedelta(seconds=3), timedelta(days=2), timedelta(days=33)))
        moment = issued + wait
        if "failed" in fate:
            self.final, self.failed_at = "failed", issued
            self.tell(issued, "open", payment_failed=True)
        if "partial" in fate and self.due > 1:
            moment = max(moment, issued + timedelta(seconds=3))
            self.pay_a_part(issued + timedelta(seconds=2))
        if "uncollectible" in fate:
            self.final = "uncollectible"
            self.tell(moment, "uncollectible")
            moment += timedelta(days=1)
        if "void" in fate:
            self.final = "void"
            self.tell(moment, "void")
        if "paid" in fate:
            self.pay(moment, ways)
        if fate == "zero":
            self.final = "paid"
            self.tell(issued, "paid", twice=True, paid_at=issued)

    def pay_a_part(self, moment: datetime) -> None:
        """A third of it is paid by hand."""
        self.paid = self.due // 3
        self.tell(moment, "open", amount_paid=self.paid, amount_remaining=self.due - self.paid)
        self.collected(moment, self.paid)

    def collected(self, moment: datetime, cents: int) -> None:
        self.recorder.expected.money.append(
            Money(self.who, self.currency, "collected", moment, cents, source=self.invoice.invoice_id)
        )

    def close(
        self,
        contract: str | None = None,
        covers: date | None = None,
        periods: tuple[tuple[datetime, datetime], ...] = (),
    ) -> None:
        """What became of it; it was tried in vain if `failed_at` is known."""
        self.recorder.expected.bills.append(
            BillFacts(
                self.who,
                self.invoice.invoice_id,
                self.currency,
                self.billed_at,
                self.final,
                self.due,
                self.paid,
                contract,
                covers,
                periods,
            )
        )
        if self.failed_at:
            _failed(self.recorder, self.who, self.currency, self.failed_at, recovered=self.paid > 0)

    def pay(self, moment: datetime, ways: Sequence[str] = STATED) -> Payment | None:
        """What is left is paid; the payment is told beside it, in one of several ways."""
        choices, cents = self.choices, self.due - self.paid
        payment_id = self.recorder.name("pi", self.who)
        way = choices.pick(ways)
        if way == "for some invoice" and self.who[0] == "stripe":  # a description is no evidence
            way = "names it"
        late = choices.pick((ZERO, timedelta(hours=30), timedelta(seconds=2), timedelta(hours=30)))
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
        self.collected(moment, cents)
        if way in ("never told", "unlinked"):
            self.could_be_met(moment)
        if way == "joined":
            self.join(moment, payment_id)
        if way == "never told":
            return None
        payment = Payment(
            payment_id=payment_id,
            status="succeeded",
            currency=self.currency,
            amount=cents,
            customer_id=self.who[2],
            invoice_id=self.invoice.invoice_id if way == "names it" else None,
            for_invoice=way == "for some invoice",
        )
        if way == "unlinked":
            unlinked(self.recorder, self.who, payment, moment)
        else:
            self.recorder.record(self.who, moment, payment)
            given_back(self.recorder, self.who, payment, moment)
        return payment

    def join(self, moment: datetime, payment_id: str, status: str = "paid", cents: int | None = None) -> None:
        joined = InvoicePayment(
            invoice_id=self.invoice.invoice_id, payment_id=payment_id, status=status, amount_paid=cents
        )
        self.recorder.record(self.who, moment, joined)

    def could_be_met(self, moment: datetime) -> None:
        """It is paid, and no statement says by which payment."""
        self.recorder.expected.unlinked_invoices.append(
            Unlinked(self.who, self.invoice.invoice_id, self.currency, self.due, (moment,))
        )


def unlinked(recorder: Recorder, who: CustomerKey, payment: Payment, paid: datetime) -> None:
    """A payment that no statement links; its attempt and its success lie at some distance from `paid`."""
    gaps = (ZERO, timedelta(minutes=4), timedelta(minutes=10), timedelta(minutes=10, seconds=1))
    attempted_at = paid + recorder.choices.pick((*gaps, timedelta(days=-3)))
    succeeded_at = max(attempted_at, paid + recorder.choices.pick(gaps))
    payment = structs.replace(payment, attempted_at=attempted_at)
    recorder.record(who, succeeded_at, payment)
    recorder.expected.unlinked_payments.append(
        Unlinked(who, payment.payment_id, payment.currency, payment.amount, (succeeded_at, attempted_at))
    )


def unlinked_payments(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """Invoices and payments within minutes of each other, of the same amounts, which nothing links."""
    choices, now = recorder.choices, start
    for _ in range(choices.number(1, 4)):
        now += choices.pick((ZERO, timedelta(minutes=3), timedelta(minutes=9), timedelta(days=1)))
        if choices.sometimes():
            payment = _payment(recorder, who, currency, choices.pick((24_900, 999)))
            unlinked(recorder, who, payment, now)
        else:
            due = choices.pick((24_900, 999))
            bill(recorder, who, currency, now, fates=("paid",), ways=("unlinked", "never told"), due=due)
    return now


def standalone(recorder: Recorder, who: CustomerKey, currency: str, moment: datetime) -> datetime:
    """A payment that belongs to no invoice, or to one that is never told."""
    choices = recorder.choices
    payment = _payment(recorder, who, currency, choices.pick((5_000, 10_000)))
    fate = choices.pick(
        (
            "told",
            "told",
            "twice",
            "after a failure",
            "failed",
            "unconfirmed",
            "confirmed",
            "of a lost invoice",
        )
    )
    if fate == "of a lost invoice":
        payment = structs.replace(payment, invoice_id=f"lost_{payment.payment_id}")
    if fate in ("failed", "after a failure"):
        recorder.record(who, moment, structs.replace(payment, status="failed"), CREATED)
        _failed(recorder, who, currency, moment, recovered=fate != "failed")
    if fate in ("unconfirmed", "confirmed"):
        waiting = structs.replace(payment, awaits_confirmation=True)
        recorder.record(who, moment, waiting, trust="unsigned")
    if fate in ("failed", "unconfirmed"):
        return moment
    recorder.record(who, moment, payment, trust="fetched" if fate == "confirmed" else "signed")
    _collected(recorder, who, payment, moment)
    if fate == "twice":
        recorder.record(who, moment + timedelta(seconds=1), payment)
        if who[0] != "stripe":  # whose payment intents know of no refund; others state all that is so
            moment += timedelta(seconds=1)
    given_back(recorder, who, payment, moment)
    return moment


def hold(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """An authorisation: released, expired, or captured, in full or in part."""
    choices = recorder.choices
    held = structs.replace(
        _payment(recorder, who, currency, choices.pick((5_000, 4_400))), status="authorized"
    )
    recorder.record(who, start, held, CREATED)
    ends = start + choices.pick((ZERO, timedelta(hours=2), timedelta(days=6)))
    fate = choices.pick(("released", "expired", "captured", "captured in part"))
    captured = {"captured": held.amount, "captured in part": held.amount // 3}.get(fate, 0)
    back = held.amount - captured
    status = "succeeded" if captured else "authorized"
    after = structs.replace(held, status=status, amount=captured or held.amount, amount_released=back)
    if fate == "expired" or (back and choices.sometimes(2)):
        refund = _refund(recorder, who, after, back, ends)
        recorder.record(who, ends, structs.replace(refund, captured=False), CREATED)
    if fate != "expired" or choices.sometimes(2):
        recorder.record(who, ends, after, UPDATED if captured else DELETED)
    if captured:
        _collected(recorder, who, after, ends)
        given_back(recorder, who, after, ends)
    return ends


def bounced(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """An invoice is paid by a payment, some of it by hand; the payment bounces, and some are paid anew.

    The payment, the invoice or both say so, whoever first; what both say is on the invoice's day.
    """
    choices, waits = recorder.choices, (timedelta(days=2), timedelta(hours=3), timedelta(days=40))
    life = _open_invoice(recorder, who, currency, start, 6_600)
    part = choices.pick((life.due, life.due // 3))
    first, paid = _pay_plainly(life, cents=part)
    told = paid + choices.pick(waits)
    teller = choices.pick(("payment", "invoice", "both"))
    fails = told + choices.pick((ZERO, timedelta(hours=1), timedelta(hours=-1))) * (teller == "both")
    if teller != "invoice":
        recorder.record(who, fails, structs.replace(first, status="failed"))
    if teller != "payment":
        life.tell(told, "open", amount_paid=life.due - part, amount_remaining=part, paid_at=None)
    life.collected(told, -part)
    life.final, life.paid, now = "open", life.due - part, max(told, fails)
    is_paid_anew = choices.sometimes(2)
    if teller != "invoice":
        _failed(recorder, who, currency, fails, recovered=is_paid_anew)
    if is_paid_anew:
        now += choices.pick(waits)
        way = choices.pick(("by hand", "by a payment", "as the payment says"))
        if way != "by hand":
            second = structs.replace(_payment(recorder, who, currency, part), invoice_id=first.invoice_id)
            recorder.record(who, now, second)
        if way != "as the payment says" or teller != "payment":
            life.tell(now, "paid", amount_paid=life.due, amount_remaining=0, paid_at=now)
        life.collected(now, part)
        life.final, life.paid = "paid", life.due
    life.close()
    return now


def shared_payment(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """One payment for two invoices; each states what it got of it, or lists it, or nothing but a link does.

    What none of them takes is an order of its own.
    """
    choices = recorder.choices
    lives = [
        _open_invoice(recorder, who, currency, start, due)
        for due in choices.pick(((2_100, 3_300), (3_300, 3_300)))
    ]
    lives.sort(key=lambda life: life.invoice.invoice_id)
    now = max(life.billed_at for life in lives) + timedelta(seconds=1)
    payment = _payment(recorder, who, currency, choices.pick((3_300, 1_500, 7_000)))
    way, is_silent, rest = choices.pick(("listed", "stated", "joined")), choices.sometimes(2), payment.amount
    for life in lives:
        cents = min(rest, life.due, choices.pick((1_500, 700)) if way != "listed" else rest)
        rest -= cents
        if way == "joined":
            life.join(now, payment.payment_id, cents=cents)
        lists: dict = {} if way == "joined" else {"payment_ids": (payment.payment_id,)}
        if way == "stated":
            lists["payment_amounts"] = (cents,)
        life.paid = cents
        life.final = "paid" if cents == life.due else "open"
        if not is_silent:
            lists |= {"amount_paid": cents, "amount_remaining": life.due - cents}
        life.tell(now, "open" if is_silent else life.final, **lists)
        life.collected(now, cents)
        life.close()
    recorder.record(who, now, payment)
    if rest:
        _collected(recorder, who, structs.replace(payment, amount=rest), now)
    return now


def nameless_payment(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A payment that names no customer, of which a link takes a part; or all of it, until it is detached."""
    choices = recorder.choices
    life = _open_invoice(recorder, who, currency, start, 5_500)
    paid = life.billed_at + timedelta(seconds=1)
    extra = choices.pick((2_000, 0))
    payment = structs.replace(_payment(recorder, who, currency, life.due + extra), customer_id=None)
    recorder.record(who, paid, payment)
    life.join(paid, payment.payment_id, cents=life.due)
    life.tell(paid, "paid", amount_paid=life.due, amount_remaining=0, paid_at=paid)
    life.collected(paid, life.due)
    life.final, life.paid = "paid", life.due
    if extra:
        _collected(recorder, who, structs.replace(payment, amount=extra), paid)
    moves = paid
    if choices.sometimes(2):
        moves += choices.pick((timedelta(days=3), timedelta(days=40)))
        life.join(moves, payment.payment_id, "canceled", life.due)
        _reopen(life, moves)
        _collected(recorder, who, structs.replace(payment, amount=life.due), moves)
    life.close()
    given_back(recorder, who, payment, moves)
    return moves


def late_failure(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A payment that succeeded, and fails days later; an invoice that it paid is open again."""
    choices = recorder.choices
    wait = choices.pick((timedelta(days=2), timedelta(hours=3), timedelta(days=40)))
    if choices.sometimes(2):
        payment = _payment(recorder, who, currency, choices.pick((5_000, 4_400)))
        recorder.record(who, start, payment)
        _collected(recorder, who, payment, start)
        recorder.record(who, start + wait, structs.replace(payment, status="failed"))
        _collected(recorder, who, structs.replace(payment, amount=-payment.amount), start + wait)
        _failed(recorder, who, currency, start + wait, recovered=False)
        return start + wait
    life = _open_invoice(recorder, who, currency, start)
    payment, paid = _pay_plainly(life)
    recorder.record(who, paid + wait, structs.replace(payment, status="failed"))
    _reopen(life, paid + wait)
    life.failed_at = paid + wait
    life.close()
    return paid + wait


def moved_payment(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A payment that is detached from one invoice, and attached to another of the same amount, or to none.

    Between the two it may be nobody's for a while.
    """
    first, second = (_open_invoice(recorder, who, currency, start) for _ in range(2))
    payment, paid = _pay_plainly(first, join=True)
    wait = recorder.choices.pick((timedelta(days=3), timedelta(minutes=5), timedelta(days=45)))
    moves = max(paid, second.billed_at) + wait
    first.join(moves, payment.payment_id, "canceled")
    _reopen(first, moves)
    _collected(recorder, who, payment, moves)
    if not recorder.choices.sometimes():
        left = structs.replace(payment, amount=-payment.amount)
        moves += recorder.choices.pick((ZERO, timedelta(minutes=7), timedelta(days=2)))
        _collected(recorder, who, left, moves)
        second.join(moves, payment.payment_id, cents=recorder.choices.pick((None, second.due)))
        second.tell(moves, "paid", amount_paid=second.due, amount_remaining=0, paid_at=moves)
        second.final, second.paid = "paid", second.due
        second.collected(moves, second.due)
    for life in (first, second):
        life.close()
    return moves


def tries(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """Failed tries at one invoice, each told by the invoice, by its payment, or both; it may be paid then."""
    choices = recorder.choices
    life = _open_invoice(recorder, who, currency, start, 8_800)
    life.due += int(life.invoice.invoice_id.partition("_")[2])  # nothing else of this amount is near
    now = life.billed_at + timedelta(seconds=1)
    life.tell(now, "open", amount_due=life.due, amount_remaining=life.due)
    payment = _payment(recorder, who, currency, life.due)
    way = choices.pick(("names it", "joined", "near" if who[0] == "stripe" else "names it"))
    if way == "names it":
        payment = structs.replace(payment, invoice_id=life.invoice.invoice_id)
    elif way == "joined":
        life.join(now, payment.payment_id, "open")
    for _ in range(choices.number(1, 3)):
        now += choices.pick((timedelta(hours=1), timedelta(days=2), timedelta(days=30)))
        teller = choices.pick(("both", "invoice", "payment")) if life.failed_at or way != "near" else "both"
        if teller != "invoice":
            recorder.record(who, now, structs.replace(payment, status="failed"), CREATED)
            life.failed_at = life.failed_at or now
        if teller != "payment":
            now += timedelta(seconds=2)
            life.tell(now, "open", payment_failed=True)
            life.final, life.failed_at = "failed", life.failed_at or now
    if choices.sometimes(2):
        now += choices.pick((timedelta(minutes=1), timedelta(days=3)))
        recorder.record(who, now, payment)
        life.tell(now, "paid", amount_paid=life.due, amount_remaining=0, paid_at=now)
        life.final, life.paid = "paid", life.due
        life.collected(now, life.due)
    life.close()
    return now


def numbered_tries(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """Tries at one bill of MX Merchant, each a payment of its own; only the bill's number joins them."""
    who = ("mxmerchant", *who[1:])
    number, now = recorder.name("no", who), start
    is_paid = recorder.choices.sometimes(2)
    _failed(recorder, who, currency, now, recovered=is_paid)
    for status in ("failed",) * recorder.choices.number(1, 3) + ("succeeded",) * is_paid:
        payment = structs.replace(_payment(recorder, who, currency, 1_300), status=status, invoice_id=number)
        recorder.record(who, now, payment)
        if status == "succeeded":
            _collected(recorder, who, payment, now)
        now += timedelta(days=2)
    return now


def voided(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """A payment that MX Merchant notified as made, and that a fetch shows voided: it was never collected.

    The notification tells the minute, the fetch the second.
    """
    who, choices = ("mxmerchant", *who[1:]), recorder.choices
    midnight = recorder.expected.close_of(recorder.expected.day(start))
    moment = choices.pick((start, midnight - timedelta(minutes=1)))
    number = choices.pick((None, recorder.name("no", who)))
    payment = structs.replace(_payment(recorder, who, currency, 5_000), invoice_id=number)
    is_signed = choices.sometimes(2)
    notified = payment if is_signed else structs.replace(payment, awaits_confirmation=True)
    recorder.record(who, moment, notified, trust="signed" if is_signed else "unsigned")
    voids = moment + choices.pick((ZERO, timedelta(seconds=40), timedelta(minutes=1)))
    recorder.record(who, voids, structs.replace(payment, status="voided"), trust="fetched")
    return voids


def part_payments(recorder: Recorder, who: CustomerKey, currency: str, start: datetime) -> datetime:
    """An invoice of which payments pay parts, as one side alone tells, or both; the last may bounce."""
    choices = recorder.choices
    life, now = _open_invoice(recorder, who, currency, start, 9_000), start
    teller = choices.pick(("payments", "invoice", "links", "both"))
    for cents in (3_100, 2_300):
        now = max(now, life.billed_at) + choices.pick(
            (timedelta(seconds=1), timedelta(days=1), timedelta(days=20))
        )
        payment = _payment(recorder, who, currency, cents)
        _tell_part(life, payment, now, teller)
        life.collected(now, cents)
    if choices.sometimes(2):
        now += choices.pick((timedelta(hours=6), timedelta(days=4)))
        _tell_part(life, structs.replace(payment, status="failed"), now, teller)
        life.collected(now, -payment.amount)
        if teller in ("payments", "both"):
            _failed(recorder, who, currency, now, recovered=False)
    life.close()
    return now


def _tell_part(life: InvoiceLife, payment: Payment, now: datetime, teller: str) -> None:
    """A part of an invoice is paid, or not any more; `teller` says so."""
    is_paid = payment.status == "succeeded"
    life.paid += payment.amount if is_paid else -payment.amount
    if teller in ("payments", "both"):
        named = structs.replace(payment, invoice_id=life.invoice.invoice_id)
        life.recorder.record(life.who, now, named)
    if teller == "links":
        life.join(now, payment.payment_id, "paid" if is_paid else "canceled", payment.amount)
    if teller in ("invoice", "both"):
        life.tell(now, "open", amount_paid=life.paid, amount_remaining=life.due - life.paid)


def _open_invoice(
    recorder: Recorder, who: CustomerKey, currency: str, start: datetime, due: int = 7_700
) -> InvoiceLife:
    life = InvoiceLife(recorder, who, currency, start, due)
    life.live("open")
    return life


def _pay_plainly(
    life: InvoiceLife, *, join: bool = False, cents: int | None = None
) -> tuple[Payment, datetime]:
    """It is paid by a payment that a statement links, and of which nothing is given back; and when.

    What the payment does not pay is paid by hand.
    """
    paid = life.billed_at + timedelta(seconds=1)
    payment = _payment(life.recorder, life.who, life.currency, cents or life.due)
    if not join:
        payment = structs.replace(payment, invoice_id=life.invoice.invoice_id)
    life.recorder.record(life.who, paid, payment)
    if join:
        life.join(paid, payment.payment_id)
    life.tell(paid, "paid", amount_paid=life.due, amount_remaining=0, paid_at=paid)
    life.collected(paid, life.due)
    return payment, paid


def _reopen(life: InvoiceLife, when: datetime) -> None:
    """Nothing is paid any more."""
    life.tell(when, "open", amount_paid=0, amount_remaining=life.due, paid_at=None)
    life.collected(when, -life.due)
    life.final, life.paid = "open", 0


def _failed(
    recorder: Recorder, who: CustomerKey, currency: str, moment: datetime, *, recovered: bool
) -> None:
    recorder.expected.failures.append(FailureFacts(who, currency, moment, recovered))


def _payment(recorder: Recorder, who: CustomerKey, currency: str, cents: int) -> Payment:
    return Payment(
        payment_id=recorder.name("pi", who),
        status="succeeded",
        currency=currency,
        amount=cents,
        customer_id=who[2],
    )


def _collected(recorder: Recorder, who: CustomerKey, payment: Payment, moment: datetime) -> None:
    recorder.expected.money.append(
        Money(
            who,
            payment.currency,
            "collected",
            moment,
            payment.amount,
            source=payment.payment_id,
            unlinked=who[0] == "stripe" and payment.invoice_id is None,
        )
    )


def _refund(recorder: Recorder, who: CustomerKey, payment: Payment, cents: int, moment: datetime) -> Refund:
    return Refund(
        refund_id=recorder.name("re", who),
        status="succeeded",
        currency=payment.currency,
        amount=cents,
        created_at=moment,
        payment_id=payment.payment_id,
    )


def given_back(recorder: Recorder, who: CustomerKey, payment: Payment, paid: datetime) -> None:
    """Refunds and disputes of a payment. Refunds are told by themselves, by their charge, or by both."""
    choices = recorder.choices
    told_by = choices.pick(("both", "refund", "charge"))
    moment, refunded = paid, 0
    for _ in range(choices.pick((0, 0, 0, 1, 2))):
        moment += choices.pick((ZERO, timedelta(seconds=1), timedelta(days=3), timedelta(days=35)))
        amount = choices.pick(((payment.amount - refunded) // 2, payment.amount - refunded))
        if not amount:
            break
        outcome = (
            "at once" if told_by == "charge" else choices.pick(("at once", "pending", "failed", "bounced"))
        )
        refund = _refund(recorder, who, payment, amount, moment)
        if told_by != "refund":
            after = structs.replace(payment, amount_refunded=refunded + amount, paid_at=paid)
            recorder.record(who, moment, after, DELETED)
        if told_by != "charge":
            _refunded(recorder, who, refund, outcome)
        if outcome not in ("failed", "bounced"):
            refunded += amount
            recorder.expected.money.append(Money(who, payment.currency, "refunded", moment, amount))
    if choices.sometimes(5):
        _disputed(recorder, who, payment, moment + timedelta(days=1))


def _refunded(recorder: Recorder, who: CustomerKey, refund: Refund, outcome: str) -> None:
    """A refund by its own events: it succeeds at once or later, or fails, some after they had succeeded."""
    moment = refund.created_at
    first = refund if outcome in ("at once", "bounced") else structs.replace(refund, status="pending")
    _went_back(recorder, who, moment, first, CREATED)
    if outcome != "at once":
        status = "succeeded" if outcome == "pending" else "failed"
        later = moment + recorder.choices.pick((ZERO, timedelta(days=2)))
        rank = UPDATED if status == "succeeded" else DELETED
        _went_back(recorder, who, later, structs.replace(refund, status=status), rank)


def _went_back(
    recorder: Recorder, who: CustomerKey, when: datetime, data: Refund | Dispute, rank: int
) -> None:
    """A refund or dispute is told; but for Stripe, sometimes also without its payment."""
    if who[0] != "stripe" and recorder.choices.sometimes():
        recorder.record(who, when, structs.replace(data, payment_id=None), rank)
    recorder.record(who, when, data, rank)


# What becomes of a dispute: each status with the days after its beginning, and what counts in the end.
_DISPUTES = {
    "lost": ((("lost", 20),), True),
    "won": ((("won", 20),), False),
    "under way": ((), False),
    "lost, appealed": ((("lost", 20), ("under_review", 30), ("lost", 60)), True),
    "lost, won": ((("lost", 20), ("under_review", 30), ("won", 60)), False),
    "prevented": ((("prevented", 1),), True),
}


def _disputed(recorder: Recorder, who: CustomerKey, payment: Payment, moment: datetime) -> None:
    name, fate = recorder.name("dp", who), recorder.choices.pick(tuple(_DISPUTES))
    steps, counts = _DISPUTES[fate]
    taken = payment.amount // 2 if fate == "prevented" else payment.amount

    def tell(days: int, status: str, rank: int) -> None:
        data = Dispute(
            dispute_id=name,
            status=status,
            currency=payment.currency,
            amount=payment.amount,
            amount_taken=taken if fate == "prevented" else None,
            payment_id=payment.payment_id,
        )
        _went_back(recorder, who, moment + timedelta(days=days), data, rank)

    tell(0, "needs_response", CREATED)
    for status, days in steps:
        tell(days, status, UPDATED)
        tell(days, status, DELETED)
    if counts:
        lost = moment + timedelta(days=steps[0][1])
        recorder.expected.money.append(Money(who, payment.currency, "disputed", lost, taken))
