"""Stripe's webhooks: what proves them, and what they say in the ledger's words.

`tests/fixtures/stripe/<family>/<type>[--variant].json` are whole deliveries, `golden/` beside them holds
the events that they make. `DAYBOOK_WRITE_GOLDEN=1 pytest tests/handlers/test_stripe.py` writes the golden
files anew; read the difference before you keep it.
"""

import copy
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import WebhookSignature

from handlers.stripe.envelope import translate
from handlers.stripe.signature import verify
from service.core.delivery import Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import Discount, Event, Item
from service.core.order import canonical
from tests.handlers.deliveries import FAMILIES, NOW, PROOF, SECONDS, STRIPE, changed, delivery, read
from tests.support.effort import examples
from tests.support.senders import sign_stripe

FILES = [path for family in FAMILIES for path in sorted((STRIPE / family).glob("*.json"))]

SECRET, OTHER = "whsec_example_new", "whsec_example_old"
BODY = b'{"id": "evt_1", "name": "Caf\xc3\xa9"}'


def signed(body=BODY, *secrets, at=SECONDS):
    headers = [
        WebhookSignature.generate_signature_header(body.decode(), secret, at)
        for secret in secrets or (SECRET,)
    ]
    return {"stripe-signature": ",".join([headers[0], *(h.partition(",")[2] for h in headers[1:])])}


def only_item(payload):
    return payload["data"]["object"]["items"]["data"][0]


def priced_delivery():
    """A subscription whose item has a price, and no plan that says the same."""
    payload = delivery("customer.subscription.created")
    only_item(payload).pop("plan", None)
    return payload


# Verification


def test_a_signed_body_is_proved_by_the_secret_that_signed_it():
    proof = verify(signed(), BODY, [SECRET], NOW)
    assert proof == Proof(
        processor="stripe",
        method="stripe-signature",
        received_at=NOW,
        signed_at=NOW,
        secret=1,
        trust="signed",
    )


def test_a_rolled_secret_proves_by_whichever_still_signs():
    assert verify(signed(BODY, SECRET), BODY, [OTHER, SECRET], NOW).secret == 2
    assert verify(signed(BODY, OTHER, SECRET), BODY, [SECRET], NOW).secret == 1


@pytest.mark.parametrize("direction", [-1, 1])
def test_a_time_counts_to_300_seconds_either_way_and_no_further(direction):
    at_the_edge, beyond = SECONDS + 300 * direction, SECONDS + 301 * direction
    assert (
        verify(signed(at=at_the_edge), BODY, [SECRET], NOW).signed_at
        == NOW + timedelta(seconds=300) * direction
    )
    with pytest.raises(VerificationError, match="more than 300 seconds"):
        verify(signed(at=beyond), BODY, [SECRET], NOW)


@pytest.mark.parametrize(
    "header",
    ["", "t=", "v1=abc", f"t={SECONDS}", f"t={SECONDS},v0=abc", f"t={SECONDS},v1=", f"t={SECONDS},v1=é",
     "t,v1", "t=now,v1=abc", f"t={'9' * 400},v1=abc", f"t={'9' * 5000},v1=abc", f"t=-{SECONDS},v1=abc",
     "t=nan,v1=a", ",,=,"],
)  # fmt: skip
def test_a_malformed_header_proves_nothing(header):
    with pytest.raises(VerificationError):
        verify({"stripe-signature": header}, BODY, [SECRET], NOW)


@pytest.mark.parametrize("secrets", [[], [""], [OTHER], [SECRET + " "]])
def test_nothing_but_the_right_secret_proves(secrets):
    with pytest.raises(VerificationError):
        verify(signed(), BODY, secrets, NOW)
    with pytest.raises(VerificationError):
        verify({}, BODY, [SECRET], NOW)


def test_a_second_time_in_the_header_does_not_make_an_old_signature_young():
    old = signed(at=SECONDS - 4000)["stripe-signature"]
    for header in (f"{old},t={SECONDS}", f"t={SECONDS},{old}"):
        with pytest.raises(VerificationError):
            verify({"stripe-signature": header}, BODY, [SECRET], NOW)


def test_a_body_that_is_not_utf_8_needs_its_own_signature():
    with pytest.raises(VerificationError):
        verify(signed(), BODY + b"\xff", [SECRET], NOW)


@given(
    sent=st.text(max_size=200).map(str.encode) | st.binary(max_size=200),
    position=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_whatever_is_signed_is_proved_and_no_bit_of_it_can_be_flipped(sent, position, bit):
    headers = {name.lower(): value for name, value in sign_stripe(sent, NOW, "", SECRET).items()}
    assert verify(headers, sent, [OTHER, SECRET], NOW).secret == 2
    if sent:
        tampered = bytearray(sent)
        tampered[position % len(sent)] ^= 1 << bit
        with pytest.raises(VerificationError):
            verify(headers, bytes(tampered), [OTHER, SECRET], NOW)


@given(header=st.text(max_size=80) | st.from_regex(r"t=[-+0-9_ ]{1,20},v1=[0-9a-f]{0,64}", fullmatch=True))
def test_no_header_raises_anything_but_a_verification_error(header):
    with pytest.raises(VerificationError) as error:
        verify({"stripe-signature": header}, BODY, [SECRET], NOW)
    assert SECRET not in str(error.value)


def test_errors_repeat_no_secret_signature_or_body():
    header = signed(BODY, OTHER)
    with pytest.raises(VerificationError) as error:
        verify(header, BODY, [SECRET], NOW)
    text = str(error.value)
    assert not any(part in text for part in (SECRET, header["stripe-signature"].partition("v1=")[2], "evt_1"))


# Golden files


def rendered(event: Event) -> str:
    delivery = {
        "processor": event.processor,
        "account": event.account,
        "event_id": event.event_id,
        "type": event.type,
        "occurred_at": event.occurred_at,
        "rank": event.rank,
        "trust": event.trust,
        "data": event.data,
        "before": event.before and msgspec.json.decode(event.before),
    }
    return json.dumps([msgspec.to_builtins(delivery)], indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_delivery_makes_the_event_of_its_golden_file(path):
    event = read(json.loads(path.read_text()))
    golden = path.parent / "golden" / path.name
    if os.environ.get("DAYBOOK_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered(event))
    assert rendered(event) == golden.read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_both_families_are_covered_and_every_golden_file_has_a_delivery(family):
    names = {path.name for path in FILES if path.parent.name == family}
    assert len(names) >= 20
    assert {path.name for path in (STRIPE / family / "golden").glob("*.json")} == names


def test_both_families_say_the_same_kind_of_thing_of_the_same_delivery():
    acacia, basil = ({p.stem for p in FILES if p.parent.name == family} for family in FAMILIES)
    assert len(acacia & basil) >= 20
    for name in acacia & basil:
        assert read(delivery(name, "acacia")).type == read(delivery(name, "basil")).type


# Envelopes


def test_a_connected_account_becomes_the_account_and_none_is_empty():
    assert read(delivery("invoice.paid--payments_expanded")).account == "acct_1ExampleConnect01"
    assert read(delivery("invoice.paid")).account == ""
    assert read(delivery("invoice.paid") | {"account": None}).account == ""


@pytest.mark.parametrize(
    "kind",
    ["price.updated", "price.created", "coupon.created", "coupon.updated", "coupon.deleted",
     "customer.source.created", "customer.tax_id.created",
     "invoiceitem.created", "invoice.upcoming", "payment_intent.created", "payment_intent.canceled",
     "payment_intent.amount_capturable_updated", "payout.paid", "checkout.session.completed",
     "checkout.session.expired", "customer_cash_balance_transaction.created", "something.new"],
)  # fmt: skip
def test_a_type_that_the_books_do_not_use_is_kept_without_effect(kind):
    event = read({"id": "evt_1", "type": kind, "created": SECONDS, "data": {"object": {}}})
    assert (event.type, event.data.original_type, event.before) == ("unused", kind, None)


@pytest.mark.parametrize("payload", [None, 1, "x", [], [{}], {}, {"id": "evt_1", "type": "invoice.paid"}])
def test_json_that_is_no_event_is_unreadable(payload):
    with pytest.raises(Unreadable):
        translate(payload, PROOF)


@pytest.mark.parametrize("field", ["id", "type", "created", "data"])
def test_an_event_without_its_envelope_is_unreadable(field):
    payload = delivery("product.updated")
    del payload[field]
    with pytest.raises(Unreadable) as error:
        translate(payload, PROOF)
    assert str(error.value) == f"Object missing required field `{field}` - at `$`"


def test_a_missing_field_is_named_with_the_place_where_it_is_missing():
    payload = priced_delivery()
    del only_item(payload)["price"]["recurring"]["interval"]
    with pytest.raises(Unreadable) as error:
        translate(payload, PROOF)
    place = "$.data.object.items.data[0].price.recurring"
    assert str(error.value) == f"Object missing required field `interval` - at `{place}`"


def test_the_trust_of_the_proof_is_the_trust_of_the_event():
    fetched = msgspec.structs.replace(PROOF, trust="fetched")
    assert translate(delivery("invoice.paid"), fetched)[0].trust == "fetched"


# What can't be read


def test_a_field_of_a_wrong_type_is_named_and_its_value_is_not():
    payload = priced_delivery()
    only_item(payload)["price"]["unit_amount"] = "a private word"
    with pytest.raises(Unreadable) as error:
        translate(payload, PROOF)
    assert "`$.data.object.items.data[0].price.unit_amount`" in str(error.value)
    assert "private" not in str(error.value)


@pytest.mark.parametrize("word", ["fortnight", "once", "", "x - at `$.y", 5, None])
def test_an_interval_that_is_not_known_is_unreadable_and_not_repeated(word):
    payload = priced_delivery()
    only_item(payload)["price"]["recurring"]["interval"] = word
    with pytest.raises(Unreadable) as error:
        translate(payload, PROOF)
    assert str(error.value).endswith(" - at `$.data.object.items.data[0].price.recurring.interval`")
    assert not word or str(word) not in str(error.value)


def test_an_active_subscription_that_tells_no_period_in_either_place_is_of_an_unknown_shape():
    payload = delivery("customer.subscription.created")
    del only_item(payload)["current_period_end"]
    with pytest.raises(Unreadable, match="current_period_end"):
        translate(payload, PROOF)
    payload["data"]["object"]["status"] = "canceled"
    assert read(payload).data.next_bill_at is None


def places(node, here=()):
    """Every path in a parsed body: ("data", "object", "items", "data", 0)."""
    for key, part in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*here, key)
        if isinstance(part, dict | list):
            yield from places(part, (*here, key))


PLACES = [(path, place) for path in FILES for place in places(json.loads(path.read_text()))]
SECRET_WORD = "a word that no error repeats"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
REPLACEMENTS = ANY_JSON | st.sampled_from(
    [SECRET_WORD, "", -1, 0, 10**13, 2**70, [], {}, [{}], {"id": 1}, "usd", "NaN"]
)


def settle(payload):
    """It translates to what can be stored and read back, or it is unreadable; no third way."""
    text = ""
    try:
        event = read(payload)
    except Unreadable as error:
        text = str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(event.data), type=type(event.data)) == event.data
        assert event.before is None or msgspec.json.decode(event.before, type=type(event.data))
    assert SECRET_WORD not in text


@examples(500)
@given(where=st.sampled_from(PLACES), value=st.none() | st.tuples(REPLACEMENTS))
def test_any_field_removed_or_of_another_type_translates_or_is_unreadable(where, value):
    path, place = where
    payload = json.loads(path.read_text())
    parent = payload
    for key in place[:-1]:
        parent = parent[key]
    if value is None:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value[0]
    settle(payload)


@given(payload=ANY_JSON)
def test_any_json_translates_or_is_unreadable(payload):
    settle(payload)
    settle(
        {"id": "evt_1", "type": "customer.subscription.updated", "created": 1, "data": {"object": payload}}
    )


def test_previous_attributes_without_a_floor_are_left_out():
    deep = {}
    for _ in range(5000):
        deep = {"metadata": deep}
    payload = changed("customer.subscription.updated--quantity", metadata=deep["metadata"])
    payload["data"]["previous_attributes"] = deep
    assert read(payload).before is None


# Subscriptions


def test_the_next_bill_is_the_period_s_end_wherever_the_family_tells_it():
    end = datetime(2025, 10, 2, 0, 1, tzinfo=UTC)
    assert read(delivery("customer.subscription.created")).data.next_bill_at == end
    acacia = delivery("customer.subscription.created", "acacia")
    assert read(acacia).data.next_bill_at == datetime(2025, 2, 1, 0, 1, tzinfo=UTC)


def test_the_next_bill_of_items_with_several_periods_is_the_earliest():
    data = read(delivery("customer.subscription.created--mixed_intervals")).data
    assert [item.interval for item in data.items] == ["year", "month"]
    assert data.next_bill_at == datetime(2025, 10, 1, tzinfo=UTC)


def test_cancel_at_period_end_without_a_date_ends_with_the_period():
    payload = changed("customer.subscription.updated--cancel_at_period_end", cancel_at=None)
    data = read(payload).data
    assert data.cancel_at == data.next_bill_at is not None
    assert read(changed("customer.subscription.created")).data.cancel_at is None


def test_a_trial_tells_its_end_and_its_first_bill():
    data = read(delivery("customer.subscription.created--trialing")).data
    assert (data.status, data.trial_end_at) == ("trialing", data.next_bill_at)


@pytest.mark.parametrize(
    ("decimal", "whole", "amount"), [("0.5", None, "0.5"), ("4900", 4900, "4900"), (None, 4900, "4900")]
)
def test_a_unit_amount_is_exact(decimal, whole, amount):
    payload = delivery("customer.subscription.created")
    only_item(payload)["price"] |= {"unit_amount_decimal": decimal, "unit_amount": whole}
    assert read(payload).data.items[0].unit_amount == Decimal(amount)


def test_a_tiered_price_without_its_tiers_can_not_be_read_and_with_them_can():
    hidden = read(delivery("customer.subscription.created--tiers_not_expanded")).data.items[0]
    shown = read(delivery("customer.subscription.updated--tiers")).data.items[0]
    assert (hidden.unit_amount, hidden.tiers) == (None, ())
    assert [(t.up_to, t.unit_amount, t.flat_amount) for t in shown.tiers] == [
        (10, 0, 5000), (100, 300, 0), (None, Decimal("212.5"), 0)
    ]  # fmt: skip


def test_the_last_tier_may_be_called_inf():
    payload = delivery("customer.subscription.updated--tiers")
    only_item(payload)["price"]["tiers"][-1]["up_to"] = "inf"
    assert read(payload).data == read(delivery("customer.subscription.updated--tiers")).data


def test_a_metered_item_has_no_quantity_and_a_package_divides_it():
    metered, package = read(delivery("customer.subscription.created--metered_and_packages")).data.items
    assert (metered.metered, metered.quantity, metered.unit_amount) == (True, 1, Decimal("0.25"))
    assert (package.metered, package.quantity, package.divide_by, package.divide_round) == (
        False,
        42,
        10,
        "up",
    )


@pytest.mark.parametrize("fields", [{"recurring": None}, {"type": "one_time"}])
def test_a_one_off_price_bills_once(fields):
    payload = delivery("customer.subscription.created")
    only_item(payload)["price"] |= fields
    item = read(payload).data.items[0]
    assert (item.interval, item.every) == ("once", 1)


def test_a_plan_says_what_a_price_says():
    by_price = delivery("customer.subscription.created--metered_and_packages", "acacia")
    by_plan = copy.deepcopy(by_price)
    for item in by_plan["data"]["object"]["items"]["data"]:
        del item["price"]
    assert read(by_plan).data == read(by_price).data


def test_a_subscription_from_before_items_has_its_plan_and_quantity():
    data = read(delivery("customer.subscription.created--plan_only", "acacia")).data
    assert data.currency == "usd"
    assert data.items == (
        Item(interval="month", every=3, quantity=4, unit_amount=Decimal(1999), price_id="gold"),
    )


def test_a_price_in_another_currency_than_the_subscription_can_not_be_read():
    item = read(changed("customer.subscription.created", currency="eur")).data.items[0]
    assert (item.unit_amount, item.price_id) == (None, "price_1BExample00000001")


def test_items_that_a_list_leaves_out_count_as_one_without_a_readable_price():
    payload = delivery("customer.subscription.created")
    payload["data"]["object"]["items"]["has_more"] = True
    first, rest = read(payload).data.items
    assert first == read(delivery("customer.subscription.created")).data.items[0]
    assert (rest.unit_amount, rest.tiers) == (None, ())


def test_expanded_objects_say_what_their_ids_say():
    payload = delivery("customer.subscription.created")
    payload["data"]["object"]["customer"] = {"id": "cus_BExample000001", "object": "customer", "name": None}
    only_item(payload)["price"]["product"] = {"id": "prod_BExample0001", "object": "product", "name": "Pro"}
    assert read(payload).data == read(delivery("customer.subscription.created")).data


# Discounts


def test_a_discount_told_as_an_object_and_by_its_id_counts_once():
    data = read(delivery("customer.subscription.updated--discount_repeating", "acacia")).data
    (discount,) = data.discounts
    assert (discount.percent_off, discount.duration) == (Decimal("25.5"), "repeating")
    assert discount.ends_at == datetime(2025, 4, 2, tzinfo=UTC)


def test_of_several_discounts_only_the_expanded_one_can_be_read():
    data = read(delivery("customer.subscription.updated--discounts_stacked", "acacia")).data
    start = datetime(2025, 1, 1, tzinfo=UTC)
    assert data.discounts == (
        Discount(discount_id="di_1AExample00000002", amount_off=1000, starts_at=start),
        Discount(discount_id="di_1AExample00000003"),
    )


def test_a_discount_that_is_only_an_id_or_a_coupon_s_id_can_not_be_read():
    assert read(delivery("customer.subscription.updated--discounts_not_expanded")).data.discounts == (
        Discount(discount_id="di_1BExample00000001"),
    )
    data = read(delivery("customer.subscription.updated--discount_source")).data
    assert [(d.percent_off, d.amount_off) for d in data.discounts] == [(None, None)]
    (of_item,) = data.items[0].discounts
    assert (of_item.discount_id, of_item.amount_off) == ("di_1BExample00000003", 1000)


def test_an_amount_off_in_another_currency_can_not_be_read():
    payload = delivery("customer.subscription.updated--discount_source")
    only_item(payload)["discounts"][0]["source"]["coupon"]["currency"] = "eur"
    (of_item,) = read(payload).data.items[0].discounts
    assert (of_item.discount_id, of_item.percent_off, of_item.amount_off) == (
        "di_1BExample00000003",
        None,
        None,
    )


def test_a_repeating_discount_without_an_end_ends_its_months_after_its_start():
    payload = delivery("customer.subscription.updated--discount_repeating")
    (discount,) = payload["data"]["object"]["discounts"]
    discount |= {"end": None, "start": int(datetime(2025, 11, 30, 8, tzinfo=UTC).timestamp())}
    assert read(payload).data.discounts[0].ends_at == datetime(2026, 2, 28, 8, tzinfo=UTC)


# Before


def test_previous_attributes_say_what_the_state_was():
    for family in FAMILIES:
        first = read(delivery("customer.subscription.created", family))
        second = read(delivery("customer.subscription.updated--quantity", family))
        before = msgspec.json.decode(second.before, type=type(second.data))
        assert before == first.data != second.data


def test_events_of_one_second_follow_from_each_other_whatever_their_ids():
    first = delivery("customer.subscription.updated--quantity")
    second = delivery("customer.subscription.updated--cancel_at_period_end")
    first |= {"id": "evt_z", "created": SECONDS}
    second |= {"id": "evt_a", "created": SECONDS}
    assert [e.event_id for e in canonical([read(second), read(first)])] == ["evt_z", "evt_a"]


def test_previous_attributes_that_can_not_be_read_are_left_out():
    payload = delivery("customer.subscription.updated--quantity")
    payload["data"]["previous_attributes"]["status"] = 5
    assert read(payload).before is None


def test_what_was_data_of_another_kind_is_left_out():
    link = {"id": "cs_1", "invoice": "in_1", "payment_intent": "pi_1"}
    note = {"id": "cn_1", "invoice": "in_1", "currency": "usd", "amount": 5, "created": SECONDS}
    for kind, now, previous in (
        ("checkout.session.completed", link, {"invoice": None}),
        ("credit_note.updated", note, {"out_of_band_amount": 5}),
        ("customer.discount.updated", {"id": "di_1", "customer": "cus_1"}, {"invoice": "in_1"}),
    ):
        data = {"object": now, "previous_attributes": previous}
        event = read({"id": "evt_1", "type": kind, "created": SECONDS, "data": data})
        assert (event.type != "unused", event.before) == (True, None)


def test_an_event_without_effect_names_its_customer():
    for fields in ({"customer": "cus_1"}, {"customer": {"id": "cus_1"}}, {"customer_account": "cus_1"}):
        event = {"id": "evt_1", "type": "payout.paid", "created": SECONDS, "data": {"object": fields}}
        assert read(event).data.customer_id == "cus_1"
    for fields in ({}, {"customer": None}, {"customer": 5}, {"customer": {"name": "x"}}):
        event = {"id": "evt_1", "type": "payout.paid", "created": SECONDS, "data": {"object": fields}}
        assert read(event).data.customer_id is None


# Order within a second


@pytest.mark.parametrize(
    ("name", "rank"),
    [("customer.created", 0), ("customer.updated", 1), ("customer.deleted", 2),
     ("customer.subscription.created", 0), ("customer.subscription.updated--quantity", 1),
     ("customer.subscription.deleted", 2),
     ("invoice.created", 0), ("invoice.finalized", 1), ("invoice.marked_uncollectible", 2),
     ("invoice.paid", 3), ("invoice.voided", 3), ("invoice.deleted", 4),
     ("charge.failed", 0), ("charge.succeeded", 1), ("charge.refunded--partial", 2),
     ("refund.created", 1), ("refund.failed", 2),
     ("charge.dispute.created", 0), ("charge.dispute.closed--lost", 2)],
)  # fmt: skip
def test_a_rank_says_how_far_along_its_life_a_thing_is(name, rank):
    assert read(delivery(name)).rank == rank


# Invoices


def test_an_invoice_without_a_status_is_a_draft():
    assert read(changed("invoice.created", status=None)).data.status == "draft"


def test_a_deleted_invoice_says_so():
    assert read(delivery("invoice.deleted")).data.status == "deleted"


def test_an_invoice_names_its_subscription_wherever_the_family_tells_it():
    for family, letter in zip(FAMILIES, "AB", strict=True):
        data = read(delivery("invoice.paid", family)).data
        assert data.subscription_id == f"sub_1{letter}Example00000001"


def test_a_payment_of_an_invoice_is_told_by_the_invoice_until_basil_and_then_by_an_event_of_its_own():
    assert read(delivery("invoice.paid", "acacia")).data.payment_ids == ("pi_3AExample00000001",)
    assert read(delivery("invoice.paid", "basil")).data.payment_ids == ()
    data = read(delivery("invoice_payment.paid")).data
    assert (data.invoice_id, data.payment_id) == ("in_1BExample00000001", "pi_3BExample00000001")


def test_an_invoice_without_a_payment_intent_is_settled_by_its_charge():
    assert read(delivery("invoice.paid--connect_charge", "acacia")).data.payment_ids == (
        "ch_3AExample00000008",
    )


def test_canceled_payments_of_an_invoice_do_not_settle_it():
    data = read(delivery("invoice.paid--payments_expanded")).data
    assert data.payment_ids == ("pi_3BExample00000081", "py_3BExample00000082")
    assert data.payment_amounts == (20_000, 10_000)


def test_a_line_s_product_has_a_name_where_one_is_visible():
    assert read(delivery("invoice.paid--payments_expanded")).data.lines[0].product_name == "Onboarding day"
    assert read(delivery("invoice.paid", "acacia")).data.lines[0].product_name == "Pro monthly"
    line = read(delivery("invoice.paid")).data.lines[0]
    assert (line.amount, line.product_id, line.price_id, line.product_name) == (
        14700, "prod_BExample0001", "price_1BExample00000001", None
    )  # fmt: skip


def test_lines_that_a_list_leaves_out_are_one_without_a_product():
    payload = delivery("invoice.paid")
    invoice = payload["data"]["object"]
    seen = [line.amount for line in read(payload).data.lines]
    invoice["lines"]["has_more"] = True

    invoice["subtotal"] = sum(seen) + 2_000
    lines = read(payload).data.lines
    assert [line.amount for line in lines] == [*seen, 2_000]
    assert (lines[-1].product_id, lines[-1].price_id) == (None, None)
    del invoice["subtotal"]
    assert read(payload).data.lines == ()


def test_only_a_failed_attempt_says_that_payment_failed():
    assert read(delivery("invoice.payment_failed")).data.payment_failed
    assert not read(delivery("invoice.finalized")).data.payment_failed


# Payments


def test_charge_and_intent_tell_of_one_payment():
    by_charge, by_intent = (
        read(delivery("charge.succeeded")).data,
        read(delivery("payment_intent.succeeded")).data,
    )
    assert by_charge.payment_id == by_intent.payment_id == "pi_3BExample00000001"
    assert by_charge.amount == by_intent.amount == 14700


def test_a_payment_belongs_to_an_invoice_that_it_names_and_a_description_is_no_evidence():
    assert read(delivery("charge.succeeded", "acacia")).data.invoice_id == "in_1AExample00000001"
    described = read(changed("charge.succeeded", description="Payment for Invoice")).data
    assert (described.invoice_id, described.for_invoice) == (None, False)
    referred = read(delivery("payment_intent.succeeded")).data
    assert (referred.invoice_id, referred.for_invoice) == ("in_1BExample00000001", False)


def test_a_partly_captured_charge_counts_what_was_captured():
    assert read(changed("charge.succeeded", amount_captured=100)).data.amount == 100
    assert read(changed("charge.succeeded", amount_captured=None)).data.amount == 14700


def test_a_refunded_charge_still_succeeded_and_says_when_it_was_paid():
    data = read(delivery("charge.refunded--partial")).data
    assert (data.status, data.amount, data.amount_refunded) == ("succeeded", 2000, 500)
    assert data.paid_at == datetime(2025, 9, 3, tzinfo=UTC)
    assert read(delivery("charge.succeeded--one_off")).data.paid_at is None


def test_a_failed_payment_failed():
    assert (
        read(delivery("charge.failed")).data.status
        == read(delivery("payment_intent.payment_failed")).data.status
        == "failed"
    )


@pytest.mark.parametrize("name", ["refund.created", "charge.dispute.created"])
def test_refunds_and_disputes_name_their_payment_by_intent_else_by_charge(name):
    assert read(delivery(name)).data.payment_id.startswith("pi_")
    assert read(changed(name, payment_intent=None)).data.payment_id.startswith("ch_")
    nameless = changed(name, payment_intent=None, charge=None, destination_details=None)
    assert read(nameless).data.payment_id is None


def test_an_object_that_the_api_showed_is_of_that_moment_to_the_microsecond():
    shown_at = datetime(2025, 11, 13, 12, 0, 0, 700_000, tzinfo=UTC)
    proof = Proof(
        processor="stripe",
        method="fetch",
        received_at=shown_at,
        trust="fetched",
        message_id="in_1@0:1",
        account="acct_1",
    )
    [observed] = translate(delivery("invoice.paid")["data"]["object"], proof)
    assert (observed.occurred_at, observed.event_id, observed.account) == (shown_at, "in_1@0:1", "acct_1")
    assert (observed.trust, observed.type) == ("fetched", "invoice.recorded")
