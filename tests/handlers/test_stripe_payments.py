"""Stripe's payments, refunds, disputes and links: what was captured, held, given back and taken."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.stripe.envelope import translate
from service.core.delivery import Proof
from service.core.events import CreditNote, InvoicePayment, Refund, Unused
from service.core.order import canonical
from tests.handlers.deliveries import NOW, SECONDS, changed, delivery, read, said, seconds, without


def charge(kind: str = "charge.updated", **fields: Any) -> Any:
    return said(
        kind,
        **{"id": "ch_1", "currency": "eur", "created": SECONDS, "amount": 8000, "status": "succeeded"}
        | fields,
    )


def money(payment: Any) -> tuple[str, int, int, int]:
    return payment.status, payment.amount, payment.amount_refunded, payment.amount_released


# Money that was only held


@pytest.mark.parametrize("amount", [1, 7350])
def test_a_hold_is_no_money(amount: int) -> None:
    for kind in ("charge.succeeded", "charge.updated"):
        held = charge(kind, amount=amount, captured=False, amount_captured=0)
        assert money(held) == ("authorized", amount, 0, 0)


@pytest.mark.parametrize("kind", ["charge.refunded", "charge.expired"])
@pytest.mark.parametrize("amount", [900, 64000])
def test_a_released_hold_refunds_nothing(kind: str, amount: int) -> None:
    released = charge(kind, amount=amount, captured=False, amount_captured=0, amount_refunded=amount)
    assert money(released) == ("authorized", amount, 0, amount)


@pytest.mark.parametrize("captured", [8001, 12000])
def test_more_than_was_held_may_be_captured(captured: int) -> None:
    payment = charge(captured=True, amount=8000, amount_captured=captured)
    assert money(payment) == ("succeeded", captured, 0, 0)


def test_a_hold_expires_whether_or_not_the_charge_states_an_amount() -> None:
    assert money(charge("charge.expired", captured=False)) == ("authorized", 8000, 0, 8000)


@pytest.mark.parametrize(
    ("captured", "back", "refunded", "released"),
    [
        (8000, 0, 0, 0),
        (5000, 0, 0, 0),
        (5000, 3000, 0, 3000),
        (5000, 4200, 1200, 3000),
        (5000, 8000, 5000, 3000),
    ],
)
def test_of_a_part_that_was_captured_only_that_part_can_be_refunded(
    captured: int, back: int, refunded: int, released: int
) -> None:
    part = charge(captured=True, amount_captured=captured, amount_refunded=back)
    assert money(part) == ("succeeded", captured, refunded, released)


@given(st.integers(0, 10**15), st.data())
def test_what_is_refunded_and_released_is_what_was_given_back(amount: int, data: st.DataObject) -> None:
    captured = data.draw(st.integers(0, amount))
    back = data.draw(st.integers(0, amount))
    payment = charge(captured=True, amount=amount, amount_captured=captured, amount_refunded=back)
    assert payment.amount_refunded + payment.amount_released == back
    assert 0 <= payment.amount_refunded <= payment.amount <= amount
    assert payment.amount + payment.amount_released <= amount


def test_the_refund_that_ends_a_hold_gives_nothing_back() -> None:
    for reason, captured in (
        ("expired_uncaptured_charge", False),
        ("requested_by_customer", True),
        (None, True),
    ):
        assert read(changed("refund.created", reason=reason)).data.captured is captured


def test_a_capture_of_the_same_second_comes_after_the_hold() -> None:
    held = changed("charge.succeeded", captured=False, amount_captured=0) | {"id": "evt_z"}
    captured = changed("charge.succeeded") | {"id": "evt_a", "type": "charge.captured"}
    expired = changed("charge.refunded--partial") | {"type": "charge.expired", "created": held["created"]}
    assert [e.event_id for e in canonical([read(captured), read(held)])] == ["evt_z", "evt_a"]
    assert read(expired).rank > read(captured).rank


# Old charges


@pytest.mark.parametrize(
    ("stated", "status"),
    [({"status": "paid"}, "succeeded"), ({"status": None, "paid": True}, "succeeded"),
     ({"status": "pending"}, "pending"),
     ({"status": None, "paid": False}, "failed"),
     ({"status": "paid", "captured": False}, "authorized"), ({"status": "failed"}, "failed")],
)  # fmt: skip
def test_an_old_charge_says_in_other_words_whether_it_was_paid(stated: dict[str, Any], status: str) -> None:
    assert charge(**stated).status == status


def test_a_charge_from_before_amounts_were_captured_in_part_is_captured_whole() -> None:
    payload = without(
        delivery("charge.succeeded"), "amount_captured", "captured", "amount_refunded", "status"
    )
    payload["data"]["object"]["paid"] = True
    assert money(read(payload).data) == ("succeeded", 14700, 0, 0)


def test_an_intent_without_what_it_received_received_its_amount() -> None:
    payload = without(delivery("payment_intent.succeeded"), "amount_received")
    assert read(payload).data.amount == read(delivery("payment_intent.succeeded")).data.amount


def test_a_charge_says_when_the_attempt_began() -> None:
    assert charge().attempted_at == NOW
    assert charge("charge.failed", status="failed").attempted_at == NOW


@pytest.mark.parametrize("kind", ["charge.pending", "charge.updated", "charge.something_new"])
def test_every_event_about_a_charge_is_read(kind: str) -> None:
    assert charge(kind, status="pending").status == "pending"


# Customers that are accounts


@pytest.mark.parametrize("kind", ["charge.succeeded", "refund.created", "payment_intent.succeeded"])
def test_an_account_stands_for_the_customer_where_there_is_none(kind: str) -> None:
    assert read(changed(kind, customer=None, customer_account="acct_9")).data.customer_id == "acct_9"
    assert read(changed(kind, customer="cus_9", customer_account="acct_9")).data.customer_id == "cus_9"


# Refunds


@pytest.mark.parametrize("fields", [{"status": None}, {}])
def test_a_refund_without_a_status_is_kept_with_an_unknown_one(fields: dict[str, Any]) -> None:
    data = said(
        "charge.refund.updated",
        id="re_1",
        amount=300,
        currency="eur",
        created=SECONDS,
        charge="ch_1",
        **fields,
    )
    assert (data.status, data.amount, data.payment_id) == ("unknown", 300, "ch_1")


def test_cash_that_paid_nothing_and_goes_back_is_no_refund() -> None:
    fields = {"id": "re_1", "amount": 2600, "currency": "eur", "created": SECONDS, "status": "succeeded"}
    bank = {"destination_details": {"type": "eu_bank_transfer"}}
    returned = said("refund.created", **fields, **bank, customer="cus_1")
    assert returned == Unused(original_type="refund.created", customer_id="cus_1")
    assert said("refund.created", **fields, **bank, payment_intent="pi_1").amount == 2600
    assert said("refund.created", **fields).amount == 2600


@pytest.mark.parametrize(
    ("status", "counts"), [("issued", "succeeded"), ("void", "canceled"), (None, "succeeded")]
)
def test_money_given_back_by_hand_is_a_refund(status: str | None, counts: str) -> None:
    note = {"id": "cn_1", "invoice": "in_1", "customer": "cus_1", "currency": "eur", "amount": 5000}
    data = said("credit_note.updated", **note, created=SECONDS, status=status, out_of_band_amount=1900)
    assert data == Refund(
        refund_id="cn_1", status=counts, currency="eur", amount=1900, created_at=NOW, customer_id="cus_1"
    )
    for nothing in (0, None):
        assert isinstance(said("credit_note.created", **note, out_of_band_amount=nothing), CreditNote)


# Disputes


@pytest.mark.parametrize(
    ("transactions", "taken"),
    [
        (None, None),
        ([], 0),
        (["txn_1"], None),
        ([{"amount": -8000, "currency": "eur"}], 8000),
        ([{"amount": -8000, "currency": "eur"}, {"amount": 8000, "currency": "eur"}], 0),
        ([{"amount": -8000}, {"amount": 3000}], 5000),
        ([{"amount": -9100, "currency": "usd"}], 8000),
        ([{"amount": -9100, "currency": "usd"}, {"amount": 9150, "currency": "usd"}], 0),
    ],
)
def test_a_dispute_took_what_its_balance_transactions_say(transactions: Any, taken: int | None) -> None:
    data = said(
        "charge.dispute.updated", id="dp_1", status="prevented", currency="eur", amount=8000,
        balance_transactions=transactions, charge="ch_1",
    )  # fmt: skip
    assert data.amount_taken == taken


# Links to invoices


@pytest.mark.parametrize("status", ["paid", "open", "canceled"])
def test_a_payment_of_an_invoice_is_told_in_every_status(status: str) -> None:
    payload = changed("invoice_payment.paid", status=status, amount_paid=None, status_transitions=None)
    data = read(payload).data
    assert (data.status, data.amount_paid, data.paid_at) == (status, None, None)


def test_a_payment_of_an_invoice_says_how_much_and_when() -> None:
    data = read(
        changed("invoice_payment.paid", amount_paid=600, status_transitions={"paid_at": SECONDS})
    ).data
    assert (data.amount_paid, data.paid_at) == (600, NOW)


def test_a_detached_payment_settles_its_invoice_no_longer() -> None:
    assert (
        read(delivery("invoice_payment.paid") | {"type": "invoice_payment.detached"}).data.status
        == "canceled"
    )


@pytest.mark.parametrize(
    ("invoice", "intent", "paid", "status"),
    [("in_1", "pi_1", "paid", "paid"), ({"id": "in_1"}, {"id": "pi_1"}, "unpaid", "open")],
)
def test_a_checkout_joins_its_payment_and_the_receipt(
    invoice: Any, intent: Any, paid: str, status: str
) -> None:
    session = {"id": "cs_1", "invoice": invoice, "payment_intent": intent, "payment_status": paid}
    for kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        assert said(kind, **session) == InvoicePayment(invoice_id="in_1", payment_id="pi_1", status=status)


@pytest.mark.parametrize(
    "fields", [{"invoice": "in_1"}, {"payment_intent": "pi_1"}, {"setup_intent": "seti_1"}]
)
def test_a_checkout_that_names_one_of_the_two_joins_nothing(fields: dict[str, Any]) -> None:
    data = said("checkout.session.completed", id="cs_1", customer="cus_1", **fields)
    assert data == Unused(original_type="checkout.session.completed", customer_id="cus_1")


@pytest.mark.parametrize(
    ("order", "invoice_id"), [("in_9", "in_9"), ("ORDER-7", None), ("", None), (None, None)]
)
def test_only_an_invoices_id_in_the_order_reference_is_a_link(
    order: str | None, invoice_id: str | None
) -> None:
    stated = charge(
        payment_details={"order_reference": order}, invoice=None, description="Payment for Invoice"
    )
    assert (stated.invoice_id, stated.for_invoice) == (invoice_id, False)
    assert charge(payment_details={"order_reference": order}, invoice="in_1").invoice_id == "in_1"


# Objects that the API shows, long after


def observed(**fields: Any) -> Any:
    proof = Proof(
        processor="stripe", method="fetch", received_at=NOW, trust="fetched", message_id=f"{fields['id']}@1:1"
    )
    (event,) = translate(fields, proof)
    assert event.occurred_at == NOW
    return event.data


LONG_AGO = seconds(2023, 3, 1)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_charge_that_is_observed_keeps_its_own_time(status: str) -> None:
    paid = observed(id="ch_1", object="charge", currency="eur", created=LONG_AGO, amount=8000, status=status)
    at = datetime.fromtimestamp(LONG_AGO, UTC)
    assert (paid.paid_at, paid.failed_at) == ((at, at if status == "failed" else None))


def test_a_dispute_that_is_observed_took_its_money_with_its_last_transaction() -> None:
    taken = [{"amount": -8000, "created": LONG_AGO}, {"amount": 0, "created": LONG_AGO + 60}, "txn_1"]
    fields = {"id": "dp_1", "object": "dispute", "status": "lost", "currency": "eur", "amount": 8000}
    lost = observed(**fields, charge="ch_1", balance_transactions=taken)
    assert lost.taken_at == datetime.fromtimestamp(LONG_AGO + 60, UTC)
    assert said("charge.dispute.closed", **fields, charge="ch_1", balance_transactions=taken).taken_at is None


def test_an_event_of_a_charge_has_its_own_time() -> None:
    assert charge(created=LONG_AGO).paid_at is None
    assert charge("charge.failed", created=LONG_AGO, status="failed").failed_at is None
