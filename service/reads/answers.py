"""What answers are made of: fields that mean the same in every answer, and `meta`.

An answer is a struct beside the read that makes it. A field's description is that of the API.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta as Description
from msgspec import Struct

from service.core.events import PERSONAL


def about(description: str, schema: Mapping[str, Any] | None = None) -> Description:
    """What a field holds, and what its JSON Schema says beside its type."""
    return Description(description=description, extra_json_schema=dict(schema) if schema else None)


def cents(description: str) -> Description:
    """What an amount of money is."""
    return about(f"{description}, in minor units of `currency`")


def ratio(formula: str, whole: str) -> Description:
    """How a quotient of sums is made."""
    return about(f"{formula}, to six digits; null where {whole} is 0")


def day(description: str) -> Description:
    """What a day is that of."""
    return about(f"{description}, such as 2025-11-13")


def moment(description: str) -> Description:
    """What a moment is that of."""
    return about(f"{description}, RFC 3339 in UTC")


def or_null(field: Description, when: str) -> Description:
    """A field that is null in some cases; `when` describes them."""
    return about(f"{field.description}; null {when}")


Day = Annotated[str, Description(extra_json_schema={"format": "date"})]
Moment = Annotated[str, Description(extra_json_schema={"format": "date-time"})]
TrustLevel = Literal["signed", "unsigned", "fetched", "inferred"]
IntervalName = Literal["day", "week", "month", "year", "once"]
LinkName = Literal["stated", "inferred"]
Freshness = Literal["real_time", "catching_up", "as_known"]

# Fields
Account = Annotated[str, about("the processor's account that it belongs to; empty for the only one")]
Bills = Annotated[int, about("how many bills")]
Cadence = Annotated[
    str, about('the schedule in a word or three: "weekly", "every 4 weeks", "quarterly", "once"')
]
Causes = Annotated[
    list[str], about("the events that made this row, each for `/api/v1/ledger/causes/{cause}`")
]
ContractId = Annotated[str, about("the id of the subscription or contract at the processor")]
Currency = Annotated[str, about("ISO 4217, lower case", {"pattern": "^[a-z]{3}$"})]
CustomerId = Annotated[str, about("the customer's id at the processor; empty where the processor names none")]
EmailOfCustomer = Annotated[
    str | None,
    PERSONAL,
    about("the customer's e-mail address; null where none is known, and without the scope `people`"),
]
NameOfCustomer = Annotated[
    str | None,
    PERSONAL,
    about("the customer's name; null where none is known, and without the scope `people`"),
]
Customers = Annotated[int, about("how many distinct customers")]
Declined = Annotated[bool, about("whether the last payment was declined")]
Every = Annotated[int, about("how many intervals lie between two bills")]
Interval = Annotated[IntervalName, about("what the schedule counts in")]
Month = Annotated[str, about('the month, such as "2025-11"')]
NextBillDate = Annotated[
    Day | None,
    or_null(
        day("when the contract bills next; of a bill, when the next one after it falls"),
        "where none is known",
    ),
]
NextCursor = Annotated[str | None, about("`cursor` of the next page; null on the last page")]
Policy = Annotated[str, about("the policy by which MRR counts: `default` or one of the rulebook")]
Processor = Annotated[str, about('the processor that sent it: "stripe", "mxmerchant" or "standard.<name>"')]
Reason = Annotated[
    str | None,
    about("why there is no figure, or not a better one; null where there is nothing to say"),
]
CancellationReason = Annotated[
    str | None,
    about(
        "why contracts were, or will be, cancelled, in the processor's words: cancellation_requested, "
        "payment_failed, payment_disputed; several with semicolons between; null where nothing is said"
    ),
]
CancellationFeedback = Annotated[
    str | None,
    about(
        "what the customer chose as the reason, in the processor's words, such as too_expensive; "
        "several with semicolons between; null where nothing is said"
    ),
]
CancellationComment = Annotated[
    str | None,
    PERSONAL,
    about(
        "what the customer wrote about the reason; null where nothing is said, and without the scope `people`"
    ),
]
ReasonCauses = Annotated[list[str], about("the events that say why, among them that of the comment")]
Schedule = Annotated[str, about('the schedule, such as "Weekly - 4 Weeks", "Monthly - 1 Month" or "Once"')]
SourceId = Annotated[str, about("the id of the invoice, payment, refund or dispute at the processor")]
Link = Annotated[
    LinkName | None,
    about("how the invoice and its payments were joined; null where they were not"),
]
Trust = Annotated[TrustLevel, about("how the events behind it were proved")]
WeakestTrust = Annotated[TrustLevel, about("how the weakest of the events behind it was proved")]
WeeksPerMonth = Annotated[str, about('weeks in a month for MRR, exactly: "4.33" or "13/3"')]

BilledCents = Annotated[int, cents("bills issued, by bill date")]
UpcomingCents = Annotated[int, cents("bills still to be issued: stated, drafted or forecast")]
OverdueCents = Annotated[int, cents("stated bills of a day before `today` for which nothing was issued")]
TotalCents = Annotated[int, cents("billed, upcoming and overdue together; uncollectible bills are left out")]
CollectedCents = Annotated[int, cents("what was paid, by the day it was paid")]
OpenCents = Annotated[int, cents("what of issued bills is still to be paid")]
MrrCents = Annotated[int, cents("monthly recurring revenue")]
OpeningCents = Annotated[int, cents("MRR before")]
ClosingCents = Annotated[int, cents("MRR after: the opening and what moved it")]


class Meta(Struct, frozen=True, kw_only=True):
    """What an answer is made from: the state of the books, and counts of what they leave out."""

    position: Annotated[int, about("a ledger position, from 1; of the books, the last one that they hold")]
    recorded_at: Annotated[Moment | None, or_null(moment("when that event was recorded"), "at position 0")]
    lag_events: Annotated[int, about("how many events of the ledger the books do not hold yet")]
    calculation_date: Annotated[Day, day("`today`: the day that splits past from coming")]
    data_freshness: Annotated[
        Freshness,
        about("whether the books hold all of the ledger, or what was asked for of it"),
    ]
    weeks_per_month: WeeksPerMonth
    unpriced_contracts: Annotated[int, about("live contracts with a price that can't be read; it counts 0")]
    overdue_contracts: Annotated[
        int,
        about(
            "live contracts with a bill stated for three days ago or earlier, "
            "of which nothing was heard since"
        ),
    ]
    unknown_statuses: Annotated[
        int,
        about(
            "contracts, invoices, payments, refunds and disputes with an unknown status word; they count 0"
        ),
    ]
    unlinked_payments: Annotated[
        int, about("payments that count as orders since no invoice is known that they pay")
    ]
    ignored_events: Annotated[int, about("events of the mode that does not count, in any currency")]
    set_aside: Annotated[
        int,
        about(
            "histories of which the last events are not read, since a book could not be made from them, "
            "in any currency"
        ),
    ]
    inferred_share: Annotated[
        float,
        about(
            "the part of the answer's first figure of money that no event tells, but what was billed: "
            "0 to 1, to six digits"
        ),
    ]


class CustomerMeta(Meta, frozen=True, kw_only=True):
    """What an answer about customers is made from, and when."""

    calculation_date: Annotated[
        Moment, moment("when it was computed, or the beginning of an earlier or later `today`")
    ]
