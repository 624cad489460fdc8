"""What the answers hold: every field described once, and the shapes that are made of them.

A field means the same wherever its name stands; where it doesn't, the shape says so itself.
"""

from typing import Any

Schema = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _date(description: str) -> Schema:
    return _text(f"{description}, such as 2025-11-13", format="date")


def _moment(description: str) -> Schema:
    return _text(f"{description}, RFC 3339 in UTC", format="date-time")


def _count(description: str) -> Schema:
    return {"type": "integer", "description": description}


def _cents(description: str) -> Schema:
    return _count(f"{description}, in minor units of `currency`")


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _or_null(field: Schema, when: str) -> Schema:
    return {
        **field,
        "type": [field["type"], "null"],
        "description": f"{field['description']}; null {when}",
    }


def _one(name: str, description: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}", "description": description}


def _many(name: str, description: str) -> Schema:
    items = {"$ref": f"#/components/schemas/{name}"}
    return {"type": "array", "items": items, "description": description}


def _texts(description: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_DIGEST = "SHA-256 in hexadecimal"
_TRUST = ["signed", "unsigned", "fetched"]
_UPCOMING = "a bill that is coming has none"

FIELDS: dict[str, Schema] = {
    # Time
    "year": _count("the calendar year"),
    "month": _text('the month, such as "2025-11"'),
    "quarter": _text('the quarter, such as "2025-Q4"'),
    "week": _count("which week of the month: days 1–7, 8–14, 15–21, 22–28, 29–end"),
    "period": _text('the month ("2025-11") or the day ("2025-11-13")'),
    "by": _text("the length of a period", enum=["month", "day"]),
    "from": _date("the first day"),
    "to": _date("the last day"),
    "date": _date("the day"),
    "billing_date": _date("the day of these bills"),
    "next_bill_date": _or_null(
        _date("when the contract bills next; of a bill, when the next one after it falls"),
        "where none is known",
    ),
    "ends_date": _or_null(_date("the day on which the contract ends or has ended"), "where no end is known"),
    "days_until_payment": _count("days from `today` to the bill; negative where that is past"),
    # Money
    "currency": _text("ISO 4217, lower case", pattern="^[a-z]{3}$"),
    "amount_cents": _cents("the amount: of a bill what is due, of a movement its size and direction"),
    "total_cents": _cents("billed and upcoming together; uncollectible bills are left out"),
    "billed_cents": _cents("bills issued, by bill date"),
    "upcoming_cents": _cents("bills still to be issued, drafts too"),
    "later_cents": _cents("what contracts of short intervals add later in the month of their next bill"),
    "schedule_total_cents": _cents("`total_cents` and `later_cents` together"),
    "collected_cents": _cents("what was paid, by the day it was paid"),
    "refunded_cents": _cents("refunds that succeeded, by their own day"),
    "disputed_cents": _cents("disputes lost, by the day they were lost"),
    "net_cents": _cents("collected less refunded less disputed"),
    "open_cents": _cents("what of issued bills is still to be paid"),
    "uncollectible_cents": _cents("bills given up as uncollectible, by bill date"),
    "daily_revenue_cents": _cents("the day's bills together"),
    "mrr_cents": _cents("monthly recurring revenue"),
    "arr_cents": _cents("twelve times the MRR"),
    "arpa_cents": _or_null(_cents("MRR for each customer"), "without customers"),
    "book_mrr_cents": _cents("MRR of the whole active book at the end of `today`"),
    "opening_cents": _cents("MRR before"),
    "closing_cents": _cents("MRR after: the opening and what moved it"),
    "new_cents": _cents("MRR from customers who never had any"),
    "reactivation_cents": _cents("MRR from customers who had none left"),
    "expansion_cents": _cents("what customers' MRR rose by"),
    "contraction_cents": _cents("what customers' MRR fell by, negative or zero"),
    "churn_cents": _cents("MRR of customers who have none left, negative or zero"),
    # Counts
    "customers": _count("how many distinct customers"),
    "customers_count": _count("how many distinct customers"),
    "book_customers": _count("customers with MRR in the whole active book at the end of `today`"),
    "payments": _count("how many bills"),
    "payments_count": _count("how many bills"),
    "payment_count": _count("how many bills"),
    "bills": _count("how many bills"),
    "upcoming_bills": _count("how many bills are still to be issued"),
    "contracts": _count("how many contracts count in MRR"),
    "active_contracts": _count("how many contracts count in MRR"),
    "weekly_count": _count("contracts that bill every week"),
    "four_week_count": _count("contracts that bill every 4 weeks"),
    "ten_week_count": _count("contracts that bill every 10 weeks"),
    "new_customers": _count("customers behind `new_cents`"),
    "reactivated_customers": _count("customers behind `reactivation_cents`"),
    "expanded_customers": _count("customers behind `expansion_cents`"),
    "contracted_customers": _count("customers behind `contraction_cents`"),
    "churned_customers": _count("customers behind `churn_cents`"),
    # Things
    "customer_id": _text("the customer's id at the processor; empty where the processor names none"),
    "customer_name": _or_null(_text("the customer's name"), "where none was told"),
    "contract_id": _text("the id of the subscription or contract at the processor"),
    "source_id": _text("the id of the invoice, payment, refund or dispute at the processor"),
    "invoice_id": _or_null(_text("the invoice's id at the processor"), _UPCOMING),
    "processor": _text('who told it: "stripe", "mxmerchant" or "standard.<name>"'),
    "account": _text("the processor's account that it belongs to; empty for the only one"),
    "trust": _text("how the events behind it were proved", enum=_TRUST),
    "causes": _texts("the events that made this row, each for `/api/v1/ledger/causes/{cause}`"),
    "status": _text("the status: of a contract the processor's own word, in lower case"),
    "interval": _text("what the schedule counts in", enum=["day", "week", "month", "year", "once"]),
    "every": _count("how many intervals lie between two bills"),
    "schedule": _text('the schedule, such as "Weekly - 4 Weeks", "Monthly - 1 Month" or "Once"'),
    "billing_schedule": _text('the schedule, such as "Weekly - 4 Weeks", "Monthly - 1 Month" or "Once"'),
    "cadence": _text('the schedule in a word or three: "weekly", "every 4 weeks", "quarterly", "once"'),
    "declined": _flag("whether the last payment was declined"),
    "unpriced": _flag("whether a price or discount in it can't be read"),
    "tied": _flag("whether two of its events of one moment differ, and only their ids say which came last"),
    "kind": _text("what moved", enum=["new", "reactivation", "expansion", "contraction", "churn"]),
    "rank": _count("the place in the list, from 1"),
    "top_share": {"type": "number", "description": "the largest bills' part of `total_cents`, 0 to 1"},
    "next_cursor": _or_null(_text("`cursor` of the next page"), "on the last page"),
    # Meta
    "position": _count("a ledger position, from 1; of the books, the last one that they hold"),
    "recorded_at": _or_null(_moment("when that event was recorded"), "at position 0"),
    "lag_events": _count("how many events of the ledger the books do not hold yet"),
    "calculation_date": _date("`today`: the day that splits past from coming"),
    "data_freshness": _text("whether the books hold all of the ledger", enum=["real_time", "catching_up"]),
    "weeks_per_month": _text('weeks in a month for MRR, exactly: "4.33" or "13/3"'),
    "unpriced_contracts": _count("live contracts with a price that can't be read; it counts 0"),
    "meta": _one("Meta", "what this answer is made from"),
    # Ledger
    "cause": _text('the event\'s name in `causes`, such as "stripe:evt_1"'),
    "event_id": _text("the event's id, unique within processor and account"),
    "type": _text("the event's type in the ledger's words"),
    "occurred_at": _moment("when it happened"),
    "data": {"type": "object", "description": "the state after it happened, in the ledger's words"},
    "before": {
        "type": ["object", "null"],
        "description": "the state until then; null where it was not told",
    },
    "content_digest": _text(f"{_DIGEST} of the body without what a redelivery may change"),
    "delivery": _count("position of the first event of the delivery that it came in"),
    "digest": _text(f"{_DIGEST}: the chain's link, over this row and the link before"),
    "head": _count("the ledger's last position"),
    "next_after": {"type": ["integer", "null"], "description": "`after` of the next page; null at the end"},
    "raw_body": _text("the body as it came; what is not UTF-8 is replaced"),
    "raw_body_base64": _text("the body's bytes exactly, in base64", contentEncoding="base64"),
    "headers": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "what it was signed with",
    },
    # Webhooks and problems
    "received": _flag("true: it is on disk"),
    "duplicate": _flag("whether the ledger held the event already"),
    "conflict": _flag("the ledger holds other content under this event id; this one is in quarantine"),
    "quarantined": _flag("it can't be read; kept whole in quarantine"),
    "title": _text("the status in words"),
    "detail": _text("what was wrong; never a secret"),
}


def _shape(names: str, **own: Schema) -> Schema:
    """An object of these fields, in their order; one with a question mark may be left out."""
    stated = [name.partition("?") for name in names.split()]
    return {
        "type": "object",
        "properties": {name: own.get(name) or FIELDS[name] for name, _, _ in stated},
        "required": [name for name, optional, _ in stated if not optional],
    }


_TALLY = "billed_cents upcoming_cents total_cents customers bills"
_MONTH = "year month currency summary weeks days top top_share"
_MONTH_OWN = {
    "month": _count("the calendar month, 1 to 12"),
    "summary": _one("Summary", "the month in figures"),
    "weeks": _many("Week", "the month's weeks, all of them"),
    "days": _many("Day", "the days that have bills"),
    "top": _many("TopBill", "the ten largest bills: amount down, then date, then customer id"),
}
_EVENT = (
    "position cause processor account event_id type occurred_at recorded_at rank trust data before "
    "content_digest delivery digest"
)
_EVENT_OWN = {
    "recorded_at": _moment("when it was recorded"),
    "rank": _count("orders the events of one moment: how far along its life the thing is"),
}
_BILL_STATUS = _text(
    "where the bill stands", enum=["upcoming", "draft", "open", "failed", "paid", "uncollectible"]
)
_BILL_CONTRACT = _or_null(FIELDS["contract_id"], "for a bill of no contract")

SHAPES: dict[str, Schema] = {
    "Meta": _shape(
        "position recorded_at lag_events calculation_date data_freshness weeks_per_month unpriced_contracts"
    ),
    "Summary": _shape(
        "customers payments total_cents later_cents schedule_total_cents mrr_cents billed_cents "
        "collected_cents open_cents upcoming_cents book_customers book_mrr_cents",
        mrr_cents=_cents("MRR of the contracts that bill in this month, each once"),
    ),
    "Week": _shape("week from to customers payments total_cents"),
    "Day": _shape("date customers payments total_cents"),
    "TopBill": _shape("rank customer_id date amount_cents cadence trust causes"),
    "Bill": _shape(
        "date customer_id customer_name contract_id invoice_id amount_cents cadence mrr_cents status "
        "next_bill_date open_cents declined schedule processor account trust causes",
        date=_date("the bill date"),
        mrr_cents=_cents("the contract's MRR on the bill date"),
        status=_BILL_STATUS,
        contract_id=_BILL_CONTRACT,
    ),
    "CurrentMonth": _shape(f"{_MONTH} meta", **_MONTH_OWN),
    "MonthDetail": _shape(
        f"{_MONTH} payments meta", **_MONTH_OWN, payments=_many("Bill", "every bill of the month, by date")
    ),
    "ForecastMonth": _shape(f"month {_TALLY}"),
    "ForecastQuarter": _shape(
        f"quarter from to {_TALLY} months", months=_many("ForecastMonth", "the quarter's three months")
    ),
    "QuarterlyForecast": _shape(
        "currency quarters meta", quarters=_many("ForecastQuarter", "from the one that holds `today`")
    ),
    "AnnualForecast": _shape(
        f"year currency {_TALLY} months meta", months=_many("ForecastMonth", "the year's twelve months")
    ),
    "MonthTotals": _shape(
        "month billed_cents collected_cents refunded_cents disputed_cents net_cents open_cents "
        "uncollectible_cents upcoming_cents bills upcoming_bills customers",
        bills=_count("how many bills were issued"),
        customers=_count("how many distinct customers were billed"),
    ),
    "Cash": _shape(
        "date kind amount_cents customer_id customer_name source_id processor account trust causes",
        date=_date("the day on which it was paid, refunded or lost"),
        kind=_text("what became of the money", enum=["collected", "refunded", "disputed"]),
        amount_cents=_cents("how much, never negative"),
    ),
    "MonthlyTotals": _shape(
        "currency months cash? meta",
        months=_many("MonthTotals", "every month of the range"),
        cash=_many("Cash", "the money behind the months, by date; only with `detail=cash`"),
    ),
    "Schedule": _shape("interval every schedule contracts mrr_cents"),
    "OtherCurrency": _shape("currency mrr_cents active_contracts"),
    "Mrr": _shape(
        "currency date mrr_cents arr_cents active_contracts customers arpa_cents by_schedule weekly_count "
        "four_week_count ten_week_count other_currencies meta",
        date=_date("the day at whose end this is the MRR"),
        customers=_count("customers with MRR"),
        by_schedule=_many("Schedule", "the same MRR by schedule"),
        other_currencies=_many("OtherCurrency", "what there is in other currencies; never added up"),
    ),
    "Period": _shape(
        "period opening_cents new_cents reactivation_cents expansion_cents contraction_cents churn_cents "
        "closing_cents new_customers reactivated_customers expanded_customers contracted_customers "
        "churned_customers"
    ),
    "Movement": _shape(
        "date customer_id customer_name kind amount_cents opening_cents closing_cents processor account "
        "trust causes",
        trust=_text("how the weakest of the events behind it was proved", enum=_TRUST),
    ),
    "Movements": _shape(
        "currency by periods movements? meta",
        periods=_many("Period", "every period of the range"),
        movements=_many("Movement", "what is behind the periods; only with `detail=customers`"),
    ),
    "UpcomingDay": _shape(
        "billing_date payment_count daily_revenue_cents customers",
        customers=_texts("the customers' names, ids where there is no name; sorted"),
    ),
    "UpcomingBill": _shape(
        "next_bill_date customer_id customer_name contract_id amount_cents billing_schedule "
        "days_until_payment declined processor status invoice_id trust causes",
        next_bill_date=_date("the bill date"),
        status=_text("whether the processor has drafted it", enum=["upcoming", "draft"]),
        contract_id=_BILL_CONTRACT,
    ),
    "Upcoming": _shape(
        "currency from to total_cents payments_count customers_count days payments meta",
        days=_many("UpcomingDay", "the days that have bills"),
        payments=_many("UpcomingBill", "each contract's next bill, and drafts; by date"),
    ),
    "Contract": _shape(
        "contract_id customer_id customer_name status schedule cadence interval every amount_cents currency "
        "mrr_cents next_bill_date ends_date declined unpriced tied processor account trust causes",
        amount_cents=_cents("what its next bill asks for on its own schedule, before tax"),
        mrr_cents=_cents("its MRR at the end of `today`"),
    ),
    "Contracts": _shape(
        "currency contracts next_cursor meta", contracts=_many("Contract", "one page, in a stable order")
    ),
    "LedgerHead": _shape(
        "position digest meta", position=_count("the last position; 0 when the ledger is empty")
    ),
    "LedgerEvent": _shape(_EVENT, **_EVENT_OWN),
    "LedgerEvents": _shape(
        "events next_after head meta", events=_many("LedgerEvent", "one page, by position")
    ),
    "Delivery": _shape(
        f"{_EVENT} raw_body raw_body_base64 headers verification meta",
        **_EVENT_OWN,
        verification=_one("Verification", "what was proved of it"),
    ),
    "Verification": _shape(
        "processor method received_at trust message_id signed_at secret confirmable",
        method=_text("stripe-signature, standard-webhooks, url-token or fetched"),
        received_at=_text("when it came", format="date-time"),
        message_id=_or_null(_text("the signed id of the message"), "where the method signs none"),
        signed_at=_or_null(_text("the signed time", format="date-time"), "where the method signs none"),
        secret=_or_null(_count("which of the configured secrets matched, from 1"), "where none is used"),
        confirmable=_flag("whether a fetch from the processor will confirm it"),
    ),
    "Received": _shape(
        "received position duplicate conflict? quarantined?",
        position=_or_null(_count("the event's position in the ledger"), "where it is in quarantine"),
    ),
    "Alive": _shape("status", status=_text("ok")),
    "Ready": _shape(
        "status position lag_events",
        status=_text("ready"),
        position=_count("the ledger's last position"),
        lag_events={
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "how many events each book is behind, by its name",
        },
    ),
    "Problem": _shape(
        "type title status detail",
        type=_text("always about:blank: the status says it all"),
        status=_count("the HTTP status again"),
    ),
}


def columns(answer: str, rows: str) -> list[str]:
    """The names of the CSV columns of an answer's list: its fields, but for lists of rows inside."""
    of = SHAPES[answer]["properties"][rows]["items"]["$ref"].rpartition("/")[2]
    fields = SHAPES[of]["properties"]
    return [name for name, field in fields.items() if "$ref" not in field.get("items", {})]
