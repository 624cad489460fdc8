"""The shapes of answers, made of the fields. A shape overrides the description of a field where needed."""

from functools import partial

from service.reads import shapes
from service.reads.customers.schemas import CUSTOMER_SHAPES
from service.reads.fields import FIELDS, TRUST
from service.reads.shapes import (
    Schema,
    cents,
    count,
    day,
    flag,
    many,
    moment,
    one,
    or_null,
    text,
    texts,
)

_TALLY = "billed_cents upcoming_cents overdue_cents total_cents customers bills"
_MONTH = "year month currency summary weeks days top top_share"
_MONTH_OVERRIDES = {
    "month": count("the calendar month, 1 to 12"),
    "summary": one("Summary", "the month in figures"),
    "weeks": many("Week", "the month's weeks, all of them"),
    "days": many("Day", "the days that have bills"),
    "top": many("TopBill", "the ten largest bills: amount down, then date, then customer id"),
}
_EVENT = (
    "position cause processor account event_id type occurred_at recorded_at rank trust data before "
    "content_digest delivery digest"
)
_EVENT_OVERRIDES = {
    "recorded_at": moment("when it was recorded"),
    "rank": count("orders the events of one moment: how far along its life the thing is"),
}
_QUARANTINED = "id received_at processor reason detail conflicts_with status settled_at settled_because"
_QUARANTINED_OVERRIDES = {
    "id": count("its number in quarantine"),
    "received_at": moment("when it came"),
    "reason": text("why it is there", enum=["unreadable", "conflict", "malformed"]),
    "detail": text("the same for people, without what it holds"),
    "conflicts_with": or_null(count("the position of the event that it contradicts"), "for no conflict"),
    "status": text("whether it waits, or how it was settled", enum=["open", "retried", "dismissed"]),
    "settled_at": or_null(moment("when it was settled"), "while it waits"),
    "settled_because": or_null(text("why it was dismissed"), "where it was not"),
}
_BILL_STATUS = text(
    "the status of the bill",
    enum=["upcoming", "forecast", "overdue", "draft", "open", "billed", "failed", "paid", "uncollectible"],
)
_BILL_CONTRACT = or_null(FIELDS["contract_id"], "for a bill of no contract")

shape = partial(shapes.shape, FIELDS)

SHAPES: dict[str, Schema] = CUSTOMER_SHAPES | {
    "Meta": shape(
        "position recorded_at lag_events calculation_date data_freshness weeks_per_month unpriced_contracts "
        "overdue_contracts unknown_statuses unlinked_payments ignored_events"
    ),
    "Summary": shape(
        "customers payments total_cents later_cents schedule_total_cents mrr_cents billed_cents "
        "collected_cents open_cents upcoming_cents overdue_cents book_customers book_mrr_cents",
        mrr_cents=cents("MRR of the contracts that bill in this month, each once"),
    ),
    "Week": shape("week from to customers payments total_cents"),
    "Day": shape("date customers payments total_cents"),
    "TopBill": shape("rank customer_id date amount_cents cadence trust causes"),
    "Bill": shape(
        "date customer_id customer_name contract_id invoice_id amount_cents cadence mrr_cents status "
        "next_bill_date open_cents declined interval every schedule processor account trust causes",
        date=day("the bill date"),
        mrr_cents=cents("the contract's MRR on the bill date"),
        status=_BILL_STATUS,
        contract_id=_BILL_CONTRACT,
    ),
    "CurrentMonth": shape(f"{_MONTH} meta", **_MONTH_OVERRIDES),
    "MonthDetail": shape(
        f"{_MONTH} payments meta",
        **_MONTH_OVERRIDES,
        payments=many("Bill", "every bill of the month, by date, then the customer's name or else id"),
    ),
    "ForecastMonth": shape(f"month {_TALLY}"),
    "ForecastQuarter": shape(
        f"quarter from to {_TALLY} months", months=many("ForecastMonth", "the quarter's three months")
    ),
    "QuarterlyForecast": shape(
        "currency quarters meta", quarters=many("ForecastQuarter", "from the one that holds `today`")
    ),
    "AnnualForecast": shape(
        f"year currency {_TALLY} months meta", months=many("ForecastMonth", "the year's twelve months")
    ),
    "MonthTotals": shape(
        "month billed_cents collected_cents refunded_cents disputed_cents net_cents open_cents "
        "uncollectible_cents bills customers",
        bills=count("how many bills were issued"),
        customers=count("how many distinct customers were billed"),
    ),
    "Cash": shape(
        "date kind amount_cents customer_id customer_name source_id link processor account trust causes",
        date=day("the day on which it was paid, refunded or lost"),
        kind=text("what became of the money", enum=["collected", "refunded", "disputed"]),
        amount_cents=cents("how much; negative where collected money was taken back"),
    ),
    "MonthlyTotals": shape(
        "currency months cash? meta",
        months=many("MonthTotals", "every month of the range"),
        cash=many("Cash", "the money behind the months, by date; only with `detail=cash`"),
    ),
    "Schedule": shape("interval every schedule contracts mrr_cents"),
    "OtherCurrency": shape("currency mrr_cents active_contracts"),
    "Mrr": shape(
        "currency policy weeks_per_month date mrr_cents arr_cents active_contracts customers arpa_cents "
        "by_schedule weekly_count "
        "four_week_count ten_week_count other_currencies meta",
        date=day("the day at whose end this is the MRR"),
        customers=count("customers with MRR"),
        by_schedule=many("Schedule", "the same MRR by schedule"),
        other_currencies=many("OtherCurrency", "what there is in other currencies; never added up"),
    ),
    "Period": shape(
        "period opening_cents new_cents reactivation_cents expansion_cents contraction_cents churn_cents "
        "closing_cents new_customers reactivated_customers expanded_customers contracted_customers "
        "churned_customers"
    ),
    "Movement": shape(
        "date customer_id customer_name kind amount_cents opening_cents closing_cents processor account "
        "trust causes",
        trust=text("how the weakest of the events behind it was proved", enum=TRUST),
    ),
    "Movements": shape(
        "currency policy weeks_per_month by periods movements? meta",
        periods=many("Period", "every period of the range"),
        movements=many("Movement", "what is behind the periods; only with `detail=customers`"),
    ),
    "MetricsPeriod": shape(
        "period from to complete opening_cents new_cents reactivation_cents expansion_cents "
        "contraction_cents churn_cents closing_cents opening_customers new_customers reactivated_customers "
        "churned_customers closing_customers arr_cents arpa_cents customer_churn_rate gross_mrr_churn_rate "
        "net_mrr_churn_rate net_revenue_retention quick_ratio ltv_cents payments failed_payments "
        "recovered_payments failed_payment_rate recovery_rate",
        period=text('the month ("2025-11"), the quarter ("2025-Q4") or the year ("2025")'),
        arr_cents=cents("12 × closing_cents"),
        arpa_cents=or_null(cents("closing_cents ÷ closing_customers"), "where that is 0"),
        payments=count("orders paid without a failed attempt, by their day, and `failed_payments`"),
    ),
    "Metrics": shape(
        "currency policy weeks_per_month by periods meta",
        by=text("the length of a period", enum=["month", "quarter", "year"]),
        periods=many("MetricsPeriod", "every period that holds a day of the range, whole"),
    ),
    "PolicyTotal": shape(
        "policy weeks_per_month mrr_cents active_contracts customers", customers=count("customers with MRR")
    ),
    "Reason": shape(
        "rule amount_cents text",
        amount_cents=cents("what exchanging this rule adds to the contract's MRR"),
    ),
    "ComparedContract": shape(
        "contract_id status first_mrr_cents second_mrr_cents difference_cents reasons trust causes",
        reasons=many("Reason", "why they differ; the amounts add up to `difference_cents`"),
        trust=text("how the weakest of the events behind it was proved", enum=TRUST),
    ),
    "ComparedCustomer": shape(
        "customer_id customer_name first_mrr_cents second_mrr_cents difference_cents contracts processor "
        "account trust causes",
        contracts=many("ComparedContract", "those of the customer's contracts that differ"),
        trust=text("how the weakest of the events behind it was proved", enum=TRUST),
    ),
    "Comparison": shape(
        "currency date policies difference_cents customers next_cursor meta",
        date=day("the day at whose end this is the MRR"),
        policies=many("PolicyTotal", "the first policy and the second"),
        customers=many("ComparedCustomer", "a page of those with a contract that differs, largest first"),
    ),
    "Restatement": shape(
        "recorded_at position cause type figure date until month currency account customer_id change_cents "
        "before_cents after_cents",
        recorded_at=_EVENT_OVERRIDES["recorded_at"],
        position=count("the event's position in the ledger"),
        figure=text(
            "what changed: MRR, or what `monthly-totals` shows under this name",
            enum=["mrr", "billed_cents", "collected_cents", "refunded_cents", "disputed_cents"],
        ),
        date=day("the day, gone when the event was recorded, that it changed; of several the first"),
        month=text("the month of `date`"),
        customer_id=text("whose figure it is; of several the first by id, empty where none is named"),
    ),
    "Restatements": shape(
        "currency from to restatements next_cursor meta",
        **{
            "from": day("the first day on which the events were recorded"),
            "to": day("the last day on which they were recorded"),
        },
        restatements=many("Restatement", "one page, by the events' positions"),
    ),
    "ExplainedRow": shape(
        "table key date processor account customer_id contract_id source_id kind contributes trust causes",
        key=text("the history or customer that it is a row of"),
        contract_id=or_null(FIELDS["contract_id"], "for a row of no contract"),
        source_id=or_null(FIELDS["source_id"], "for a row of none"),
        kind=or_null(text("what moved, or the status of the bill"), "where the table implies it"),
    ),
    "ProvedDelivery": shape(
        "position method received_at signed_at body_bytes verified why",
        position=count("position of the delivery's first event"),
        method=or_null(text("how it was verified, such as stripe-signature"), "where its bytes are gone"),
        received_at=or_null(moment("when it came"), "where its bytes are gone"),
        signed_at=or_null(moment("the signed time"), "where the method signs none"),
    ),
    "Cause": shape(
        "cause position account type occurred_at recorded_at trust link delivery",
        position=FIELDS["position"],
        recorded_at=_EVENT_OVERRIDES["recorded_at"],
        link=text("where the event and its raw bytes are"),
        delivery=one("ProvedDelivery", "what it came in, its signature checked again"),
    ),
    "Explanation": shape(
        "figure read of currency value formula terms sum adds_up count rows next_cursor events meta",
        count=count("how many rows there are, on all pages"),
        rows=many("ExplainedRow", "a page of the rows, by date"),
        events=many("Cause", "what caused the rows of this page, each once, by position"),
    ),
    "UpcomingDay": shape(
        "billing_date payment_count daily_revenue_cents customers",
        customers=texts("the customers' names, ids where there is no name; sorted"),
    ),
    "UpcomingBill": shape(
        "next_bill_date customer_id customer_name contract_id amount_cents interval every billing_schedule "
        "days_until_payment declined processor status invoice_id trust causes",
        next_bill_date=day("the bill date"),
        status=text(
            "whether it is stated, drafted or only forecast",
            enum=["upcoming", "overdue", "draft", "forecast"],
        ),
        contract_id=_BILL_CONTRACT,
    ),
    "Upcoming": shape(
        "currency from to total_cents payments_count customers_count forecast_cents forecast_count days "
        "payments meta",
        days=many("UpcomingDay", "the days that have bills"),
        payments=many(
            "UpcomingBill", "next bills and drafts, with `forecast=true` all that follow, too; by date"
        ),
    ),
    "Contract": shape(
        "contract_id customer_id customer_name status schedule cadence interval every amount_cents currency "
        "mrr_cents next_bill_date ends_date declined unpriced unknown_status tied processor account "
        "trust causes",
        amount_cents=cents("what its next bill asks for on its own schedule, before tax"),
        mrr_cents=cents("its MRR at the end of `today`"),
    ),
    "Contracts": shape(
        "currency contracts next_cursor meta",
        contracts=many("Contract", "one page, by the customer's name or else id"),
    ),
    "LedgerHead": shape(
        "position digest meta", position=count("the last position; 0 when the ledger is empty")
    ),
    "LedgerEvent": shape(_EVENT, **_EVENT_OVERRIDES),
    "LedgerEvents": shape("events next_after head meta", events=many("LedgerEvent", "one page, by position")),
    "Delivery": shape(
        f"{_EVENT} superseded_by raw_body raw_body_base64 headers verification meta",
        **_EVENT_OVERRIDES,
        superseded_by=or_null(
            text("the name of the event that says that this one counts no more, and what does in its place"),
            "where it counts",
        ),
        verification=one("Verification", "what was proved of it"),
    ),
    "Verification": shape(
        "processor method received_at trust message_id signed_at secret confirmable account",
        method=text("stripe-signature, standard-webhooks, url-token, fetch or import"),
        received_at=text("when it came", format="date-time"),
        message_id=or_null(
            text("the signed id of the message; of an object that was observed that of its event"),
            "where there is none",
        ),
        signed_at=or_null(text("the signed time", format="date-time"), "where the method signs none"),
        secret=or_null(count("which of the configured secrets matched, from 1"), "where none is used"),
        confirmable=flag("whether a fetch from the processor will confirm it"),
        account=text("the account of which an object was observed; empty for the key's own, and else"),
    ),
    "Quarantined": shape(_QUARANTINED, **_QUARANTINED_OVERRIDES),
    "Quarantine": shape("quarantine next_cursor meta", quarantine=many("Quarantined", "one page, by id")),
    "QuarantinedDelivery": shape(
        f"{_QUARANTINED} headers verification raw_body raw_body_base64 differences meta",
        **_QUARANTINED_OVERRIDES,
        verification=one("Verification", "what was proved of it"),
        raw_body=or_null(FIELDS["raw_body"], "once its customer was erased"),
        raw_body_base64=or_null(FIELDS["raw_body_base64"], "once its customer was erased"),
        differences=or_null(
            many("Difference", "of a conflict: what it says otherwise than what was recorded"),
            "where there is nothing to compare it with",
        ),
    ),
    "Difference": shape(
        "field before after",
        field=text('which field of the JSON, such as "data.items[0].quantity"'),
        before={"description": "what was recorded; null where it has no such field"},
        after={"description": "what is here; null where it has no such field"},
    ),
    "Received": shape(
        "received position duplicate conflict? quarantined?",
        position=or_null(count("the event's position in the ledger"), "where it is in quarantine"),
    ),
    "Alive": shape("status", status=text("ok")),
    "Ready": shape(
        "status position lag_events silent retranslation_due",
        status=text("ready"),
        position=count("the ledger's last position"),
        lag_events={
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "how many events each book is behind, by its name",
        },
        silent=many("Silent", "the processors that have not been heard for longer than is usual for them"),
        retranslation_due=texts("the processors whose events an older version translated"),
    ),
    "Silent": shape(
        "processor last_event_at usual_gap_seconds silent_seconds",
        last_event_at=moment("when its newest event was recorded"),
        usual_gap_seconds=count("the longest gap that is usual: the second longest of four weeks"),
        silent_seconds=count("how long it has been silent"),
    ),
    "Problem": shape(
        "type title status detail",
        type=text("always about:blank: the status says it all"),
        status=count("the HTTP status again"),
    ),
}


def columns(answer: str, rows: str) -> list[str]:
    """The names of the CSV columns of an answer's list: its fields, except lists of objects."""
    shape_name = SHAPES[answer]["properties"][rows]["items"]["$ref"].rpartition("/")[2]
    fields = SHAPES[shape_name]["properties"]
    return [name for name, field in fields.items() if "$ref" not in field.get("items", {})]
