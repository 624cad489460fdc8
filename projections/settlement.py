"""Settlement: which payment settles which invoice, and the money that each of them brings in.

Receipts and claims of one parent key are put together: by the stated links, else those of one customer and
amount in pairs by their distance in time. Source: contract 3.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from operator import attrgetter
from typing import Any, TypeVar

from msgspec import Struct, json
from msgspec.structs import replace

from projections.book import Row, merge_causes
from projections.receipts import CHANGES, INFERRING, Change, Claim, Receipt, Try
from projections.work import Work
from service.core.moments import day_of

NEAR = timedelta(minutes=10)

_TRUSTS = ("unsigned", "fetched", "signed")
_TRIES = json.Decoder(list[Try])
_MOMENTS = json.Decoder(list[datetime])
_LINES = json.Decoder(tuple[tuple[str | None, str | None, int], ...])
L = TypeVar("L", str, tuple[str, int])


class Settlement(Struct, frozen=True, kw_only=True):
    """An invoice with its payments, or a payment without invoice: what it brought in, and its failed tries.

    `unit_id` names it for failures: the invoice, even one that is never reported, or else the payment.
    `link` is "stated", "inferred" or, without any link, "". `is_unlinked`: a payment of a processor whose
    links may be inferred, of which nothing shows an invoice. `claim` is what the invoice itself states, if it
    is an invoice.
    """

    processor: str
    account: str
    currency: str
    customer_id: str
    source_id: str
    unit_id: str
    changes: tuple[Change, ...]
    tries: tuple[Try, ...]
    link: str = ""
    is_unlinked: bool = False
    lines: tuple[tuple[str | None, str | None, int], ...] = ()
    causes: str = "[]"
    claim: Claim | None = None

    @property
    def collected_cents(self) -> int:
        """The money that is left in the end."""
        return sum(change.cents for change in self.changes)


class Day(Struct, frozen=True, kw_only=True):
    """The change of collected money on one day, "2025-11-13"."""

    date: str
    cents: int
    causes: str
    trust: str


def settle(rows: Sequence[Row]) -> list[Settlement]:
    """The claims and receipts of one parent key, or one that stands alone, to settlements.

    A receipt in another currency than its invoice's counts by itself: currencies are never added. A payment
    that names no customer is the invoice's customer's.
    """
    customer_id = known_customer(rows)
    claims = {row.invoice_id: row for row in rows if isinstance(row, Claim)}
    receipts = sorted((row for row in rows if isinstance(row, Receipt)), key=attrgetter("payment_id"))
    inferred = _inferred_links(
        [claim for claim in claims.values() if claim.is_free], [row for row in receipts if row.is_free]
    )
    of_claim: dict[str, list[Receipt]] = defaultdict(list)
    others: dict[str, list[Receipt]] = defaultdict(list)
    for row in receipts:
        invoice_id = row.invoice_id or inferred.get(row.payment_id)
        claim = claims.get(invoice_id or "")
        if claim and row.currency in ("", claim.currency):
            of_claim[claim.invoice_id].append(row)
        elif row.currency and (row.is_reported or row.tries != "[]") and not (row.limited and row.part):
            others[invoice_id or row.payment_id].append(row)
    return [
        *(_claimed(claim, of_claim[invoice_id], customer_id) for invoice_id, claim in sorted(claims.items())),
        *(
            settlement
            for unit_id, mine in others.items()
            for settlement in _unclaimed(unit_id, mine, customer_id)
        ),
    ]


def known_customer(rows: Sequence[Row]) -> str:
    """The customer of the rows of one parent key: the invoice's, else a payment's; empty if none is known."""
    named = [row for row in rows if isinstance(row, Claim | Receipt) and row.customer_id]
    named.sort(key=lambda row: (isinstance(row, Receipt), getattr(row, "payment_id", "")))
    return named[0].customer_id if named else ""


def _claimed(claim: Claim, receipts: Sequence[Receipt], customer_id: str) -> Settlement:
    """An invoice with the payments that are linked to it."""
    link = "" if not receipts else "inferred" if claim.is_free else "stated"
    both_sides = [row.causes for row in receipts] if link == "inferred" else []
    return Settlement(
        processor=claim.processor,
        account=claim.account,
        currency=claim.currency,
        customer_id=customer_id,
        source_id=claim.invoice_id,
        unit_id=claim.invoice_id,
        changes=tuple(_larger_of_both(claim, receipts)),
        tries=_tries([claim.tries, *(row.tries for row in receipts)]),
        link=link,
        lines=_LINES.decode(claim.lines),
        causes=merge_causes([claim.causes, *both_sides] if both_sides else []),
        claim=claim,
    )


def _unclaimed(unit_id: str, receipts: Sequence[Receipt], customer_id: str) -> list[Settlement]:
    """Payments of an invoice that is not reported, or one of none: each counts by itself.

    The failed tries are those of the first payment that succeeded.
    """
    tries = _tries([row.tries for row in receipts])
    paid = [(CHANGES.decode(row.changes), row) for row in receipts if row.is_reported]
    paid = sorted(((changes, row) for changes, row in paid if changes), key=lambda pair: pair[0][0].at)
    return [
        Settlement(
            processor=row.processor,
            account=row.account,
            currency=row.currency,
            customer_id=row.customer_id or customer_id,
            source_id=row.payment_id,
            unit_id=unit_id,
            changes=tuple(changes),
            tries=() if number else tries,
            link="stated" if row.invoice_id else "",
            is_unlinked=row.invoice_id is None and row.processor == INFERRING,
        )
        for number, (changes, row) in enumerate(paid or [([], receipts[0])])
    ]


def _tries(columns: Iterable[str]) -> tuple[Try, ...]:
    """The failed tries of several rows, in order."""
    tries = (attempt for column in columns for attempt in _TRIES.decode(column))
    return tuple(sorted(tries, key=lambda attempt: (attempt.at, attempt.cause)))


def _larger_of_both(claim: Claim, receipts: Sequence[Receipt]) -> Iterator[Change]:
    """The changes of the larger of two levels: the invoice's own, and that of its payments.

    What the invoice states at a moment has the last word on it.
    """
    sides, level = _BothSides(), 0
    known = unsure = 0
    own = CHANGES.decode(claim.changes)
    steps = [*((change, None) for change in own), *_on_the_invoices_days(own, receipts)]
    for change, row in sorted(steps, key=lambda step: (step[0].at, step[1] is None, step[0].cause)):
        if row is None:
            sides.invoice_states(change.cents)
        else:
            is_sure = row.is_reported and not row.limited
            known += change.cents if is_sure else 0
            unsure += 0 if is_sure else change.cents
            sides.payments_bring(known + min(unsure, max(claim.due_cents - known, 0)))
        before, level = level, sides.level
        if level != before:
            yield Change(change.at, level - before, change.cause, change.trust)


class _BothSides:
    """The money that an invoice states, and that its payments brought, at a moment.

    A fall of one side lowers the other, unless that has stated the same fall before. `_ahead` is the fall
    that the invoice has stated before its payments; below zero, that of the payments before the invoice.
    """

    def __init__(self) -> None:
        self._stated = self._paid = 0
        self._lowered = 0  # what of the invoice's money its payments took back since it last stated it
        self._undone = 0  # what of the payments' money the invoice took back
        self._ahead = 0

    @property
    def level(self) -> int:
        """The larger of both."""
        return max(self._stated - self._lowered, self._paid - self._undone)

    def invoice_states(self, change: int) -> None:
        """The invoice states its money anew: more, less, or, with 0, as much as before."""
        self._stated += change
        self._lowered = 0
        if change < 0:
            excess = max(self._paid - self._stated, 0)
            self._undone = max(self._undone, excess)
            self._ahead = min(max(self._ahead - change, excess), self._paid)
        else:
            self._ahead = max(self._ahead, 0)

    def payments_bring(self, cents: int) -> None:
        """The payments have brought so much altogether. A rise first makes good what they took back."""
        change, self._paid = cents - self._paid, cents
        if change < 0:
            behind, self._ahead = max(-self._ahead, 0), self._ahead + change
            self._lowered = min(self._lowered + max(-self._ahead, 0) - behind, self._stated)
            self._undone = max(self._undone + change, 0)
        else:
            self._lowered = max(self._lowered - change, 0)


def _on_the_invoices_days(
    own: Iterable[Change], receipts: Sequence[Receipt]
) -> Iterator[tuple[Change, Receipt]]:
    """The changes of an invoice's payments; a change that the invoice states as well is on the invoice's day.

    It is the nearest of the same amount, without another to the contrary between.
    """
    changes = [(change, row) for row in receipts for change in CHANGES.decode(row.changes)]
    changes.sort(key=lambda pair: pair[0].at)
    moments = {rose: [each.at for each, _ in changes if (each.cents > 0) == rose] for rose in (True, False)}
    unmatched: dict[int, list[datetime]] = defaultdict(list)  # by amount, in order
    for each in sorted(own, key=attrgetter("at")):
        unmatched[each.cents].append(each.at)
    for change, row in changes:
        same, contrary = unmatched[change.cents], moments[change.cents <= 0]
        place = bisect_left(same, change.at)  # of the next one; the one before it is earlier
        near = [
            at
            for at in same[max(place - 1, 0) : place + 1]
            if not _lies_between(contrary, min(at, change.at), max(at, change.at))
        ]
        nearest = min(near, key=lambda at: abs(at - change.at), default=None)
        if nearest is not None:
            del same[bisect_left(same, nearest)]
        yield (change if nearest is None else replace(change, at=nearest)), row


def _lies_between(moments: Sequence[datetime], first: datetime, last: datetime) -> bool:
    """Whether one of some ordered moments is later than the first, and earlier than the last."""
    return bisect_right(moments, first) < bisect_left(moments, last)


# Links that nobody states


def _inferred_links(claims: Sequence[Claim], receipts: Sequence[Receipt]) -> dict[str, str]:
    """The invoice of each payment that is near enough to one: first by money, then by failed tries.

    A try that a payment linked by money explains is not another payment's.
    """
    if not (claims and receipts):
        return {}
    paid = [(at, row.invoice_id) for row in claims if (at := _last_rise(row))]
    made = [
        (at, row.payment_id) for row in receipts if _last_rise(row) for at in _MOMENTS.decode(row.moments)
    ]
    links = {payment_id: invoice_id for invoice_id, payment_id in _nearest_pairs(paid, made)}
    failed_at = {row.payment_id: [each.at for each in _TRIES.decode(row.tries)] for row in receipts}
    explained = {invoice_id: sorted(failed_at[payment_id]) for payment_id, invoice_id in links.items()}
    refused = [
        (each.at, (row.invoice_id, number))
        for row in claims
        for number, each in enumerate(_TRIES.decode(row.tries))
        if not _is_near(explained.get(row.invoice_id, ()), each.at)
    ]
    tried = [
        (at, row.payment_id) for row in receipts if not _last_rise(row) for at in failed_at[row.payment_id]
    ]
    return links | {payment_id: invoice_id for (invoice_id, _), payment_id in _nearest_pairs(refused, tried)}


def _is_near(moments: Sequence[datetime], at: datetime) -> bool:
    """Whether one of some ordered moments is near."""
    return bisect_left(moments, at - NEAR) < bisect_right(moments, at + NEAR)


def _last_rise(row: Claim | Receipt) -> datetime | None:
    """The moment at which money last came in; None where none ever did."""
    return max((change.at for change in CHANGES.decode(row.changes) if change.cents > 0), default=None)


def _nearest_pairs(
    lefts: Sequence[tuple[datetime, L]], rights: Sequence[tuple[datetime, str]]
) -> list[tuple[L, str]]:
    """Pairs of names whose moments are near: the nearest first, then by name; each name once."""
    ordered = sorted(rights)
    moments = [moment for moment, _ in ordered]
    near = [(bisect_left(moments, at - NEAR), bisect_right(moments, at + NEAR)) for at, _ in lefts]
    Work().add(sum(end - begin for begin, end in near))
    candidates = sorted(
        (abs(moment - at), left, right)
        for (at, left), (begin, end) in zip(lefts, near, strict=True)
        for moment, right in ordered[begin:end]
    )
    pairs: list[tuple[L, str]] = []
    taken: set[Any] = set()
    for _, left, right in candidates:
        if (0, left) not in taken and (1, right) not in taken:
            taken |= {(0, left), (1, right)}
            pairs.append((left, right))
    return pairs


# By day


def days(settlement: Settlement, zone: tzinfo) -> list[Day]:
    """The changes of a settlement by day, in order; days on which they cancel out are left out."""
    changes_by_day: dict[str, list[Change]] = defaultdict(list)
    for change in settlement.changes:
        changes_by_day[day_of(change.at, zone).isoformat()].append(change)
    return [
        Day(
            date=day,
            cents=cents,
            causes=_causes([change.cause for change in changes], settlement.causes),
            trust=min((change.trust for change in changes), key=_TRUSTS.index),
        )
        for day, changes in sorted(changes_by_day.items())
        if (cents := sum(change.cents for change in changes))
    ]


def _causes(names: Sequence[str], *columns: str) -> str:
    return merge_causes([json.encode(names).decode(), *columns])
