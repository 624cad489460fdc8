"""The fields of answers, each described once: a field name means the same in every answer."""

from service.reads.shapes import Schema, cents, count, day, flag, moment, one, or_null, ratio, text, texts

DIGEST = "SHA-256 in hexadecimal"
TRUST = ["signed", "unsigned", "fetched"]
_UPCOMING = "a bill that is coming has none"

FIELDS: dict[str, Schema] = {
    # Time
    "year": count("the calendar year"),
    "month": text('the month, such as "2025-11"'),
    "quarter": text('the quarter, such as "2025-Q4"'),
    "week": count("which week of the month: days 1–7, 8–14, 15–21, 22–28, 29–end"),
    "period": text('the month ("2025-11") or the day ("2025-11-13")'),
    "by": text("the length of a period", enum=["month", "day"]),
    "from": day("the first day"),
    "to": day("the last day"),
    "date": day("the day"),
    "billing_date": day("the day of these bills"),
    "next_bill_date": or_null(
        day("when the contract bills next; of a bill, when the next one after it falls"),
        "where none is known",
    ),
    "ends_date": or_null(day("the day on which the contract ends or has ended"), "where no end is known"),
    "days_until_payment": count("days from `today` to the bill; negative where that is past"),
    # Money
    "currency": text("ISO 4217, lower case", pattern="^[a-z]{3}$"),
    "amount_cents": cents("the amount: of a bill what is due, of a movement its size and direction"),
    "total_cents": cents("billed, upcoming and overdue together; uncollectible bills are left out"),
    "billed_cents": cents("bills issued, by bill date"),
    "upcoming_cents": cents("bills still to be issued: stated, drafted or forecast"),
    "overdue_cents": cents("stated bills of a day before `today` for which nothing was issued"),
    "forecast_cents": cents("what contracts bill after their next bill, by their intervals"),
    "forecast_count": count("how many bills these are"),
    "later_cents": cents("what contracts of short intervals add later in the month"),
    "schedule_total_cents": cents("`total_cents` and `later_cents` together"),
    "collected_cents": cents("what was paid, by the day it was paid"),
    "refunded_cents": cents("refunds that succeeded, by their own day"),
    "disputed_cents": cents("disputes lost, by the day they were lost"),
    "net_cents": cents("collected less refunded less disputed"),
    "open_cents": cents("what of issued bills is still to be paid"),
    "uncollectible_cents": cents("bills given up as uncollectible, by bill date"),
    "daily_revenue_cents": cents("the day's bills together"),
    "mrr_cents": cents("monthly recurring revenue"),
    "arr_cents": cents("twelve times the MRR"),
    "arpa_cents": or_null(cents("MRR for each customer"), "without customers"),
    "book_mrr_cents": cents("MRR of the whole active book at the end of `today`"),
    "opening_cents": cents("MRR before"),
    "closing_cents": cents("MRR after: the opening and what moved it"),
    "new_cents": cents("MRR from customers who never had any"),
    "reactivation_cents": cents("MRR from customers who had none left"),
    "expansion_cents": cents("what customers' MRR rose by"),
    "contraction_cents": cents("what customers' MRR fell by, negative or zero"),
    "churn_cents": cents("MRR of customers who have none left, negative or zero"),
    "first_mrr_cents": cents("MRR at the end of `today` under the first policy"),
    "second_mrr_cents": cents("MRR at the end of `today` under the second policy"),
    "difference_cents": cents("MRR under the second policy less that under the first"),
    # Policies and rates
    "policy": text("the policy by which MRR counts: `default` or one of the rulebook"),
    "complete": flag("whether the period ends by `today`; one that does not may still change"),
    "customer_churn_rate": ratio("churned_customers ÷ opening_customers", "`opening_customers`"),
    "gross_mrr_churn_rate": ratio("−(contraction_cents + churn_cents) ÷ opening_cents", "`opening_cents`"),
    "net_mrr_churn_rate": ratio(
        "−(contraction_cents + churn_cents + expansion_cents) ÷ opening_cents", "`opening_cents`"
    ),
    "net_revenue_retention": ratio(
        "(opening_cents + expansion_cents + contraction_cents + churn_cents) ÷ opening_cents",
        "`opening_cents`",
    ),
    "quick_ratio": ratio(
        "(new_cents + reactivation_cents + expansion_cents) ÷ −(contraction_cents + churn_cents)",
        "what was lost",
    ),
    "ltv_cents": or_null(
        cents("lifetime value: ARPA × months of the period ÷ customer_churn_rate, both unrounded"),
        "without customers at the end, or without churn",
    ),
    "failed_payment_rate": ratio("failed_payments ÷ payments", "`payments`"),
    "recovery_rate": ratio("recovered_payments ÷ failed_payments", "`failed_payments`"),
    # Counts
    "customers": count("how many distinct customers"),
    "customers_count": count("how many distinct customers"),
    "book_customers": count("customers with MRR in the whole active book at the end of `today`"),
    "payments": count("how many bills"),
    "payments_count": count("how many bills"),
    "payment_count": count("how many bills"),
    "bills": count("how many bills"),
    "contracts": count("how many contracts count in MRR"),
    "active_contracts": count("how many contracts count in MRR"),
    "weekly_count": count("contracts that bill every week"),
    "four_week_count": count("contracts that bill every 4 weeks"),
    "ten_week_count": count("contracts that bill every 10 weeks"),
    "new_customers": count("customers behind `new_cents`"),
    "reactivated_customers": count("customers behind `reactivation_cents`"),
    "expanded_customers": count("customers behind `expansion_cents`"),
    "contracted_customers": count("customers behind `contraction_cents`"),
    "churned_customers": count("customers behind `churn_cents`"),
    "opening_customers": count("customers with MRR before"),
    "closing_customers": count("customers with MRR after: opening + new + reactivated − churned"),
    "failed_payments": count("orders and bills of which an attempt failed, by the day of the first failure"),
    "recovered_payments": count("how many of `failed_payments` have been paid since, up to now"),
    # Things
    "customer_id": text("the customer's id at the processor; empty where the processor names none"),
    "customer_name": or_null(text("the customer's name"), "where none is known"),
    "contract_id": text("the id of the subscription or contract at the processor"),
    "source_id": text("the id of the invoice, payment, refund or dispute at the processor"),
    "link": or_null(
        text("how the invoice and its payments were joined", enum=["stated", "inferred", None]),
        "where they were not",
    ),
    "invoice_id": or_null(text("the invoice's id at the processor"), _UPCOMING),
    "processor": text('the processor that sent it: "stripe", "mxmerchant" or "standard.<name>"'),
    "account": text("the processor's account that it belongs to; empty for the only one"),
    "trust": text("how the events behind it were proved", enum=TRUST),
    "causes": texts("the events that made this row, each for `/api/v1/ledger/causes/{cause}`"),
    "status": text("the status: of a contract the processor's own word, in lower case"),
    "interval": text("what the schedule counts in", enum=["day", "week", "month", "year", "once"]),
    "every": count("how many intervals lie between two bills"),
    "schedule": text('the schedule, such as "Weekly - 4 Weeks", "Monthly - 1 Month" or "Once"'),
    "billing_schedule": text('the schedule, such as "Weekly - 4 Weeks", "Monthly - 1 Month" or "Once"'),
    "cadence": text('the schedule in a word or three: "weekly", "every 4 weeks", "quarterly", "once"'),
    "declined": flag("whether the last payment was declined"),
    "unknown_status": flag("whether its status is a word that no rule knows"),
    "unpriced": flag("whether a price or discount in it can't be read"),
    "tied": flag("whether two of its events of one moment differ, and only their ids say which came last"),
    "kind": text("what moved", enum=["new", "reactivation", "expansion", "contraction", "churn"]),
    "rank": count("the place in the list, from 1"),
    "rule": text(
        "what the policies treat differently",
        enum=["statuses", "paused", "discounts", "churn", "weeks_per_month"],
    ),
    "text": text("what the first policy does by this rule, and what the second does"),
    "top_share": {"type": "number", "description": "the largest bills' part of `total_cents`, 0 to 1"},
    "next_cursor": or_null(text("`cursor` of the next page"), "on the last page"),
    # Meta
    "position": count("a ledger position, from 1; of the books, the last one that they hold"),
    "recorded_at": or_null(moment("when that event was recorded"), "at position 0"),
    "lag_events": count("how many events of the ledger the books do not hold yet"),
    "calculation_date": day("`today`: the day that splits past from coming"),
    "data_freshness": text(
        "whether the books hold all of the ledger, or what was asked for of it",
        enum=["real_time", "catching_up", "as_known"],
    ),
    "weeks_per_month": text('weeks in a month for MRR, exactly: "4.33" or "13/3"'),
    "unpriced_contracts": count("live contracts with a price that can't be read; it counts 0"),
    "overdue_contracts": count(
        "live contracts with a bill stated for three days ago or earlier, of which nothing was heard since"
    ),
    "unknown_statuses": count(
        "contracts, invoices, payments, refunds and disputes with an unknown status word; they count 0"
    ),
    "unlinked_payments": count("payments that count as orders since no invoice is known that they pay"),
    "ignored_events": count("events of the mode that does not count, in any currency"),
    "meta": one("Meta", "what this answer is made from"),
    # Ledger
    "cause": text('the event\'s name in `causes`, such as "stripe:evt_1"'),
    "event_id": text("the event's id, unique within processor and account"),
    "type": text("the event's type in the ledger's words"),
    "occurred_at": moment("when it happened"),
    "data": {"type": "object", "description": "the state after it happened, in the ledger's words"},
    "before": {
        "type": ["object", "null"],
        "description": "the state before it happened; null where the processor does not send it",
    },
    "content_digest": text(f"{DIGEST} of the body without what a redelivery may change"),
    "delivery": count("position of the first event of the delivery that it came in"),
    "digest": text(f"{DIGEST}: the chain's link, over this row and the link before"),
    "head": count("the ledger's last position"),
    "next_after": {"type": ["integer", "null"], "description": "`after` of the next page; null at the end"},
    "raw_body": text("the body as it came; what is not UTF-8 is replaced"),
    "raw_body_base64": text("the body's bytes exactly, in base64", contentEncoding="base64"),
    "headers": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "what it was signed with",
    },
    # Restatements
    "until": day(
        "the last day of the change; of MRR, which holds until it moves again, at most the last past day"
    ),
    "change_cents": cents("what the event changed, on each of these days"),
    "before_cents": cents("before the event: MRR at the end of `date`, any other figure of its month"),
    "after_cents": cents("the same after the event"),
    # What a figure is made of
    "figure": text("its address: a read, and a JSON pointer into its answer"),
    "read": text("the read that shows it"),
    "of": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "the texts beside it in that read's answer, which identify the figure",
    },
    "value": {
        "type": ["number", "null"],
        "description": "the figure as the read shows it; amounts in minor units of `currency`",
    },
    "formula": or_null(
        text("how the value follows from `sum` and `terms`, or what is counted"), "where it is a plain sum"
    ),
    "terms": {
        "type": "object",
        "additionalProperties": {"type": ["number", "null"]},
        "description": "the other figures in the formula",
    },
    "sum": count("what all rows contribute, on all pages"),
    "adds_up": {
        "type": ["boolean", "null"],
        "description": "whether the value is `sum`, as it should be; null where it is made by the formula",
    },
    "table": text("the table of the books that holds the row"),
    "contributes": count("what the row adds to `sum`; 0 in all rows where none adds anything"),
    "body_bytes": or_null(count("how long the raw body is"), "where its bytes are gone"),
    "verified": {
        "type": ["boolean", "null"],
        "description": "whether the signature over the raw bytes still proves them, by the secrets that are "
        "configured now; null where it can't be checked",
    },
    "why": or_null(text("why it is not verified"), "where it is"),
    # Webhooks and problems
    "received": flag("true: it is on disk"),
    "duplicate": flag("whether the ledger held the event already"),
    "conflict": flag("the ledger holds other content under this event id; this one is in quarantine"),
    "quarantined": flag("it can't be read; kept whole in quarantine"),
    "title": text("the status in words"),
    "detail": text("what was wrong; never a secret"),
}
