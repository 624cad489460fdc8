"""The shapes of answers about customers."""

from functools import partial

from service.core.cadence import FREQUENCIES
from service.reads import shapes
from service.reads.customers.classes import SEGMENTS
from service.reads.fields import FIELDS
from service.reads.shapes import Schema, cents, count, day, flag, many, moment, one, or_null, text, texts

_NO_ORDER = "before any order"
_TOO_LITTLE_HISTORY = "where there is too little history; `basis` says why"


def _number(description: str) -> Schema:
    return {"type": "number", "description": description}


_CUSTOMER_FIELDS: dict[str, Schema] = {
    "success": flag("true"),
    "period": text("which orders count", enum=["all_time", "last_12_months", "last_6_months", "ytd"]),
    "total_revenue_cents": cents("orders: paid invoices, and payments that belong to none"),
    "total_orders": count("how many orders"),
    "orders": count("how many orders"),
    "revenue_cents": cents("orders"),
    "avg_order_value_cents": or_null(cents("revenue for each order"), "without orders"),
    "first_purchase_date": or_null(day("the day of the first order"), "without orders"),
    "last_purchase_date": or_null(day("the day of the last order"), "without orders"),
    "customer_lifespan_days": count("days from the first order to the last"),
    "purchase_frequency_days": or_null(count("lifespan ÷ orders, rounded"), "without orders"),
    "avg_days_between_purchases": or_null(
        _number("lifespan ÷ (orders − 1), to two digits"), "for one order or none"
    ),
    "total_refunds_cents": cents("refunds that succeeded, by their own day"),
    "total_disputes_cents": cents("disputes lost, by the day they were lost"),
    "net_revenue_cents": cents("revenue less refunds less disputes lost"),
    "product_id": or_null(text("the product, else its price"), "where the order names none"),
    "product_name": or_null(text("its name, else its id"), "where the order names none"),
    "percentage_of_total": or_null(_number("part of the revenue, in percent to two digits"), "of nothing"),
    "customer_segment": text("by total revenue and the limits of the settings", enum=list(SEGMENTS)),
    "activity_status": or_null(
        text(
            "by days since the last order: over 90, over 60, over 30, or less",
            enum=["at_risk", "declining", "active", "highly_active", None],
        ),
        _NO_ORDER,
    ),
    "lifecycle_stage": or_null(
        text(
            "new: first order under 30 days ago; else by the last: under 60, to 120, over 120 days ago",
            enum=["new", "active", "at_risk", "churned", None],
        ),
        _NO_ORDER,
    ),
    "days_since_last_purchase": count("days from the last order to `today`"),
    "customer_share": or_null(_number("part of all customers, 0 to 1"), "without customers"),
    "revenue_share": or_null(_number("part of all revenue, 0 to 1"), "without revenue"),
    "segment": text("the segment", enum=list(SEGMENTS)),
    "frequency": text(
        "by average days between purchases: 30, 90, 180 at most, or more", enum=list(FREQUENCIES)
    ),
    "single_purchase_customers": count("customers with one order, who have no frequency"),
    "cohort": text('the month of the first order, such as "2025-01"'),
    "avg_revenue_cents": or_null(cents("revenue for each customer"), "without customers"),
    "months_since": count("months since the cohort's own, which is 0"),
    "rate": or_null(_number("part of the cohort that bought in the month, 0 to 1"), "without customers"),
    "new_customers": count("how many of them bought for the first time"),
    "calculation_date": moment("when it was computed, or the beginning of an earlier or later `today`"),
    "estimated_ltv_cents": or_null(
        cents("net revenue so far, and what the next 36 months are expected to bring"), _TOO_LITTLE_HISTORY
    ),
    "next_purchase_probability": or_null(
        _number("that a live contract lives until its next bill; else of an order within 90 days; 0 to 1"),
        _TOO_LITTLE_HISTORY,
    ),
    "next_purchase_predicted_date": or_null(
        day("a live contract's next bill date; else the day by which an order is as likely as not"),
        _TOO_LITTLE_HISTORY,
    ),
    "churn_risk_score": or_null(
        _number("the probability that live contracts end within 90 days; else, that no order comes; 0 to 1"),
        _TOO_LITTLE_HISTORY,
    ),
    "recommended_actions": texts("what the rulebook says to do, each with its rule"),
    "method": or_null(text("stated (by the processor), or kaplan-meier"), "without a figure"),
    "n": or_null(count("how many lives or gaps it was learnt from"), "where it was not learnt"),
    "events": or_null(count("how many of them have ended"), "where it was not learnt"),
    "reason": or_null(text("why there is no figure, or not a better one"), "where there is nothing to say"),
    "stage": text("the customers' lifecycle stage", enum=["at_risk", "churned"]),
    "total_customer_value_cents": cents("revenue of all customers"),
    "average_customer_value_cents": or_null(cents("revenue for each customer"), "without customers"),
    "top_customer_value_cents": or_null(cents("the largest customer's revenue"), "without customers"),
    "growth_rate": or_null(
        _number("revenue of the last whole month against the one before, less 1"), "without revenue before"
    ),
    "growth_month": text("the last whole month"),
    # Forecast
    "expected_cents": or_null(cents("what is expected"), "where nothing can be said"),
    "low_cents": or_null(cents("the lower bound of an 80 % interval"), "where there is none"),
    "high_cents": or_null(cents("the upper bound"), "where there is none"),
    "contract_cents": or_null(cents("of it, bills of contracts"), "where nothing can be said"),
    "other_cents": or_null(cents("of it, other orders"), "where nothing can be said"),
    "orders_per_month": or_null(_number("orders a month"), "without a full month"),
    "months": count("how many full months"),
    "cents_per_month": or_null(
        _number("what a month has more than the one before"), "where there is no trend"
    ),
    "indices": {
        "type": ["object", "null"],
        "additionalProperties": {"type": "number"},
        "description": 'by calendar month ("01"), 1 on average; null where there is too little history',
    },
    "by_month": {
        "type": ["array", "null"],
        "items": {"type": ["number", "null"]},
        "description": "the probability by the end of each month to be under contract, or not to have gone "
        "for good; null beyond what is known",
    },
    # Backtest
    "day": or_null(day("the last day known"), "before anything is learnt"),
    "cut": or_null(day("the day up to which it was learnt"), "before anything is learnt"),
    "hidden_days": or_null(count("how many days were hidden"), "before anything is learnt"),
    "churned": or_null(count("how many left"), "of none"),
    "mean_predicted": or_null(_number("mean predicted risk"), "of none"),
    "naive": or_null(_number("mean naive risk"), "of none"),
    "brier": or_null(_number("mean square of risk less outcome: 0 is perfect"), "of none"),
    "brier_naive": or_null(_number("the same of the naive guess"), "of none"),
    "skill": or_null(_number("1 − brier ÷ brier_naive"), "where the naive guess is perfect, or of none"),
    "predicted_cents": or_null(cents("expected of all together"), "of none"),
    "actual_cents": or_null(cents("paid by all together"), "of none"),
    "mae_cents": or_null(_number("mean absolute error a customer, in minor units of `currency`"), "of none"),
    "mae_naive_cents": or_null(
        _number("the same of the naive guess, in minor units of `currency`"), "of none"
    ),
    "reasons": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "how many by reason",
    },
}

shape = partial(shapes.shape, FIELDS | _CUSTOMER_FIELDS)

_KIND_FIELDS = {
    name: {
        "tenure": one(name, "live contracts"),
        "gap": one(name, "everybody else"),
        "all": one(name, "both; the naive guess is that of each one's kind"),
    }
    for name in ("ChurnScore", "RevenueScore")
}
_BIN_FIELDS = {
    "from": _number("the least predicted risk"),
    "to": _number("the most"),
    "n": count("how many"),
    "predicted": or_null(_number("mean predicted risk"), "of none"),
    "observed": or_null(_number("part of them that left"), "of none"),
}


def _null_without_model(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}], "description": "null before anything is learnt"}


_FIGURES = (
    "estimated_ltv_cents",
    "next_purchase_probability",
    "next_purchase_predicted_date",
    "churn_risk_score",
)
_MODEL_VERSION: Schema = {
    "oneOf": [one("Learnt", ""), {"type": "null"}],
    "description": "when and of what it was learnt; null where it is not, and `reason` says why",
}
_INTERVAL: Schema = {
    "type": ["array", "null"],
    "items": {"type": ["number", "string", "null"]},
    "minItems": 2,
    "maxItems": 2,
    "description": "95 % interval, of a date the quartiles; null where there is none",
}
_HEADER = "success customer_id customer_name processor account currency"
_CLASSES = "customer_segment activity_status lifecycle_stage"
_ROW_FIELDS = (
    "customer_id customer_name total_revenue_cents total_orders avg_order_value_cents total_refunds_cents "
    "total_disputes_cents net_revenue_cents first_purchase_date last_purchase_date days_since_last_purchase "
    f"{_CLASSES} processor account causes"
)
_PAGE = many("CustomerRow", "one page")

CUSTOMER_SHAPES: dict[str, Schema] = {
    "CustomerMeta": shape(
        "position recorded_at lag_events calculation_date data_freshness weeks_per_month unpriced_contracts "
        "overdue_contracts unknown_statuses unlinked_payments ignored_events"
    ),
    "CustomerRow": shape(_ROW_FIELDS, causes=texts("the events behind the orders of the last day")),
    "TopCustomers": shape("success currency customers next_cursor meta", customers=_PAGE),
    "CustomerAtRisk": shape(
        f"{_ROW_FIELDS} mrr_cents ends_date churn_risk_score",
        causes=texts("the events behind the orders of the last day"),
        ends_date=or_null(day("when all of their contracts are set to end"), "where they are not"),
    ),
    "CustomersAtRisk": shape(
        "success stage currency customers next_cursor meta", customers=many("CustomerAtRisk", "one page")
    ),
    "CohortMonth": shape("month months_since customers rate"),
    "Cohort": shape(
        "cohort customers orders revenue_cents avg_revenue_cents retention_rates retention",
        retention_rates={
            "type": "array",
            "items": {"type": "number"},
            "description": "the rates of `retention` alone, from the cohort's own month on",
        },
        retention=many("CohortMonth", "the months from the cohort's own to that of `today`"),
    ),
    "Cohorts": shape(
        "success currency cohorts meta", cohorts=many("Cohort", "every month of the range, even without any")
    ),
    "Segment": shape("segment customers revenue_cents customer_share revenue_share"),
    "Distribution": shape(
        "success currency customers revenue_cents segments meta",
        segments=many("Segment", "all four, downwards"),
    ),
    "Frequency": shape("frequency customers revenue_cents customer_share revenue_share"),
    "PurchaseFrequency": shape(
        "success currency customers revenue_cents frequencies single_purchase_customers meta",
        frequencies=many("Frequency", "all four, upwards"),
    ),
    "TrendMonth": shape("month revenue_cents orders customers new_customers"),
    "AtRisk": shape(
        "customers revenue_cents top_customers", top_customers=many("CustomerRow", "the five largest")
    ),
    "Dashboard": shape(
        "success currency customers total_customer_value_cents average_customer_value_cents "
        "top_customer_value_cents growth_rate growth_month top_customers distribution at_risk monthly_trend "
        "meta",
        top_customers=many("CustomerRow", "the five largest"),
        distribution=many("Segment", "customers and revenue by segment"),
        at_risk=one("AtRisk", "customers whose last order is 60 to 120 days ago"),
        monthly_trend=many("TrendMonth", "the last twelve months, the present one too"),
    ),
    "RevenueSummary": shape(
        "total_revenue_cents total_orders avg_order_value_cents first_purchase_date last_purchase_date "
        "customer_lifespan_days purchase_frequency_days avg_days_between_purchases total_refunds_cents "
        "total_disputes_cents net_revenue_cents"
    ),
    "CustomerMonth": shape("month revenue_cents orders avg_order_value_cents"),
    "CustomerQuarter": shape("quarter revenue_cents orders avg_order_value_cents"),
    "ProductRevenue": shape("product_id product_name revenue_cents orders percentage_of_total"),
    "Basis": shape("method n events interval reason", interval=_INTERVAL),
    "Bases": shape(" ".join(_FIGURES), **{name: one("Basis", "how it was made") for name in _FIGURES}),
    "Learnt": shape(
        "on position", on=day("the day"), position=count("the ledger position that the books held")
    ),
    "Predictions": shape(
        "estimated_ltv_cents next_purchase_probability next_purchase_predicted_date churn_risk_score "
        "recommended_actions learnt basis",
        learnt=_MODEL_VERSION,
        basis=one("Bases", "how each of the figures was made"),
    ),
    "OrderPart": shape("product_id product_name amount_cents"),
    "Order": shape(
        "date source_id amount_cents trust link products causes",
        products=many("OrderPart", "parts that add up to the amount"),
    ),
    "Reversal": shape(
        "date kind source_id amount_cents trust causes",
        kind=text("what became of the money", enum=["refunded", "disputed"]),
    ),
    "CustomerRevenue": shape(
        f"{_HEADER} period revenue_summary monthly_breakdown? quarterly_breakdown? product_breakdown? "
        f"orders? reversals? predictions {_CLASSES} meta",
        revenue_summary=one("RevenueSummary", "the orders of the period, added up"),
        monthly_breakdown=many("CustomerMonth", "every month from the first order's to that of `today`"),
        quarterly_breakdown=many("CustomerQuarter", "every quarter of these months"),
        product_breakdown=many("ProductRevenue", "the period's revenue by product, the largest first"),
        orders=many("Order", "every order of the period; only with `detail=orders`"),
        reversals=many("Reversal", "what went back in the period; only with `detail=orders`"),
        predictions={
            "oneOf": [one("Predictions", ""), {"type": "null"}],
            "description": "what is to be expected; null unless asked for",
        },
    ),
    "ForecastMonthOfCustomer": shape(
        "month expected_cents low_cents high_cents contract_cents other_cents",
        month=text("a whole month, the first one after today's"),
    ),
    "ForecastYearOfCustomer": shape("expected_cents low_cents high_cents"),
    "OrderFrequency": shape("orders_per_month avg_order_value_cents months reason"),
    "Trend": shape("cents_per_month reason"),
    "Seasonality": shape("indices reason"),
    "Survival": shape(
        "kind by_month reason", kind=or_null(text("whose curve", enum=["tenure", "gap", None]), "without one")
    ),
    "ForecastFactors": shape(
        "frequency trend seasonality survival",
        frequency=one("OrderFrequency", "of the last twelve full months, or as many as there are"),
        trend=one("Trend", "by least squares over them, where it is beyond chance"),
        seasonality=one("Seasonality", "where there are two full years"),
        survival=one("Survival", "whether the customer is still there"),
    ),
    "CustomerForecast": shape(
        f"{_HEADER} months monthly annual factors method reason meta",
        months=count("how many months were asked for"),
        monthly=many("ForecastMonthOfCustomer", "each of them"),
        annual={
            "oneOf": [one("ForecastYearOfCustomer", ""), {"type": "null"}],
            "description": "the first twelve months together; null where fewer were asked for",
        },
        factors=one("ForecastFactors", "what it is made of"),
        method=or_null(
            text(
                "a contract's dated bills, or the orders of the last year; with survival where it is known",
                enum=["scheduled", "scheduled_survival", "orders", "orders_survival", None],
            ),
            "where nothing can be said",
        ),
        reason=or_null(text("what was left out or not known"), "where there is nothing to say"),
    ),
    "Opportunity": shape(
        "rule kind text because causes",
        rule=text("the rulebook's rule"),
        kind=text("what it is", enum=["offer", "upsell", "action"]),
        text=text("what is recommended"),
        because={"type": "object", "description": "what the rule asks for, as the customer has it"},
        causes=texts("the events behind the last order and the live contracts"),
    ),
    "Opportunities": shape(
        f"{_HEADER} {_CLASSES} opportunities actions meta",
        opportunities=many("Opportunity", "offers and upsells whose rules apply, in the rulebook's order"),
        actions=many("Opportunity", "what to do, by rules that apply"),
    ),
    "ChurnScore": shape(
        "n churned mean_predicted naive brier brier_naive skill reason", n=count("how many were predicted")
    ),
    "ChurnScores": shape("tenure gap all", **_KIND_FIELDS["ChurnScore"]),
    "RevenueScore": shape(
        "n predicted_cents actual_cents mae_cents mae_naive_cents", n=count("how many were predicted")
    ),
    "RevenueScores": shape("tenure gap all", **_KIND_FIELDS["RevenueScore"]),
    "CalibrationBin": shape("from to n predicted observed", **_BIN_FIELDS),
    "Unpredicted": shape("n reasons", n=count("how many had no estimate")),
    "Backtest": shape(
        "success currency learnt day cut hidden_days churn unpredicted calibration revenue reason meta",
        learnt=_MODEL_VERSION,
        churn=_null_without_model(one("ChurnScores", "who left, against the probabilities")),
        unpredicted=_null_without_model(one("Unpredicted", "customers who had no estimate")),
        calibration=or_null(
            many("CalibrationBin", "ten bins of predicted churn risk"), "before anything is learnt"
        ),
        revenue=_null_without_model(one("RevenueScores", "what they paid, against what was expected")),
    ),
}
_META = one("CustomerMeta", "what this answer is made from")
for _shape in CUSTOMER_SHAPES.values():
    if "meta" in _shape["properties"]:
        _shape["properties"]["meta"] = _META
