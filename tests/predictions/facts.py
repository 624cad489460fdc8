"""A customer of a history, as a read would find them, row by row."""

from service.predictions.fit import History
from service.predictions.model import Facts


def facts_of(known: History, customer: int, day: int) -> Facts:
    """The facts of one customer at the close of a day, without bills: a history has none."""
    orders = [
        (int(when), int(cents))
        for who, when, cents in zip(known.order_customer, known.order_day, known.order_amount, strict=True)
        if who == customer and when <= day
    ]
    moves = [
        (int(when), int(closing))
        for who, when, closing in zip(known.move_customer, known.move_day, known.move_closing, strict=True)
        if who == customer and when <= day
    ]
    levels = [0, *(closing for _, closing in moves)]
    turns = [(when, before, after) for (when, after), before in zip(moves, levels, strict=False)]
    last = orders[-1][0] if orders else None
    return Facts(
        today=day,
        orders=len(orders),
        first_day=orders[0][0] if orders else None,
        last_day=last,
        last_order_cents=sum(cents for when, cents in orders if when == last),
        last_order_mrr_cents=next((c for when, c in reversed(moves) if last is not None and when <= last), 0),
        mrr_cents=levels[-1],
        tenure_day=max((when for when, before, after in turns if not before and after), default=None),
        ended_day=max((when for when, before, after in turns if before and not after), default=None),
    )
