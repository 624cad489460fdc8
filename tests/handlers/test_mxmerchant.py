import base64
import hmac
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers import mxmerchant
from handlers.mxmerchant import contracts, payments
from service.core.cadence import per_month, schedule_label
from service.core.changes import changed_events
from service.core.delivery import Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import (
    Customer,
    Data,
    Dispute,
    Event,
    Item,
    Payment,
    Refund,
    Subscription,
    Unused,
    subjects,
)
from service.core.money import round_fraction
from service.core.order import canonical
from tests.support.effort import examples
from tests.support.paths import FIXTURES

MXMERCHANT = FIXTURES / "mxmerchant"
MERCHANT = "1000000001"
OBSERVED = datetime(2025, 11, 13, 9, 0, tzinfo=UTC)
SIGNED = Proof(
    processor="mxmerchant",
    method="standard-webhooks",
    received_at=OBSERVED + timedelta(seconds=2),
    message_id="msg_1",
    signed_at=OBSERVED,
    secret=1,
)
UNSIGNED = Proof(processor="mxmerchant", method="url-token", received_at=OBSERVED, trust="unsigned", secret=1)
CONFIRMABLE = replace(UNSIGNED, confirmable=True)


def fixture(name: str) -> Any:
    return msgspec.json.decode((MXMERCHANT / f"{name}.json").read_bytes())


CONTRACTS: list[dict[str, Any]] = fixture("contracts")["records"]
CONTRACT = CONTRACTS[0]
TYPES = ("PaymentSuccess", "PaymentFail", "RefundCreated", "Chargeback")


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def subscription(record: dict[str, Any]) -> Subscription:
    data = contracts.contract_events(record, OBSERVED)[0].data
    assert isinstance(data, Subscription)
    return data


def told(name: str, proof: Proof = SIGNED, **fields: Any) -> Event:
    event, *_ = mxmerchant.translate(fixture(name) | fields, proof)
    return event


# Verification

SECRET = "whsec_" + base64.b64encode(b"the relay's secret, of some length").decode()


def relayed(body: bytes) -> dict[str, str]:
    stamp = int(OBSERVED.timestamp())
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"msg_1.{stamp}.".encode() + body, sha256).digest()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(stamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


BODY = json.dumps(CONTRACT).encode()


def test_the_relays_signature_proves_its_delivery() -> None:
    proof = mxmerchant.verify_relay(relayed(BODY), BODY, (SECRET,), SIGNED.received_at)

    assert proof == SIGNED


@examples(40)
@given(at=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused(at: int, flip: int) -> None:
    body = BODY[:at] + bytes([BODY[at] ^ flip]) + BODY[at + 1 :]

    with pytest.raises(VerificationError):
        mxmerchant.verify_relay(relayed(BODY), body, (SECRET,), OBSERVED)


def test_a_known_token_is_recorded_as_unsigned() -> None:
    proof = mxmerchant.verify_token({":token": "t2"}, b"{}", ("t1", "t2"), OBSERVED)

    assert proof == replace(UNSIGNED, secret=2)


@pytest.mark.parametrize("token", ["", "t", "t11", "T1", "ü", "\ud800"])
@pytest.mark.parametrize("tokens", [(), ("",), ("t1",)])
def test_an_unknown_token_is_refused_and_not_repeated(token: str, tokens: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError) as caught:
        mxmerchant.verify_token({":token": token}, b"{}", tokens, OBSERVED)

    assert str(caught.value) == "the URL token is not known"


def test_a_delivery_without_a_token_is_refused() -> None:
    with pytest.raises(VerificationError):
        mxmerchant.verify_token({}, b"{}", ("t1",), OBSERVED)


# Contracts


def test_a_contract_record_is_a_subscription_as_observed() -> None:
    event, named = mxmerchant.translate(CONTRACT, SIGNED)

    pseudonym = "mx_" + sha256(b"1000000001\0Avery Stone").hexdigest()[:20]
    assert event == Event(
        processor="mxmerchant",
        account=MERCHANT,
        event_id="msg_1:8797",
        occurred_at=OBSERVED,
        trust="signed",
        data=Subscription(
            subscription_id="8797",
            customer_id=pseudonym,
            status="active",
            currency="usd",
            items=(Item(interval="week", every=4, unit_amount=Decimal(51200)),),
            next_bill_on=date(2025, 11, 20),
            counts_from_on=date(2025, 11, 20),
        ),
    )
    assert named == replace(
        event, event_id="msg_1:8797:customer", data=Customer(customer_id=pseudonym, name="Avery Stone")
    )


def test_the_sample_makes_the_recurring_revenue_that_is_expected_of_it() -> None:
    # given the sample and what it should come to at 4.33 weeks a month
    expected = fixture("contracts.expected")

    # when
    events = mxmerchant.translate(fixture("contracts"), SIGNED)

    # then
    active = [e.data for e in events if isinstance(e.data, Subscription) and e.data.status == "active"]
    items = [item for s in active for item in s.items if item.interval != "once"]
    assert len(items) == expected["active_recurring_contracts"]
    factor = Fraction(433, 100)
    assert expected["mrr_cents"] == sum(
        round_fraction(Fraction(i.unit_amount or 0) * per_month(i.interval, factor) / i.every) for i in items
    )
    labels = [schedule_label(i.interval, i.every).removeprefix("Weekly - ") for i in items]
    assert {label: labels.count(label) for label in labels} == expected["schedules"]


def test_names_stand_in_customer_data_only() -> None:
    for event in mxmerchant.translate(fixture("contracts"), SIGNED):
        assert isinstance(event.data, Customer) or b"Stone" not in msgspec.json.encode(event.data)


def test_the_list_total_is_not_the_contracts() -> None:
    assert subscription(CONTRACT | {"grandTotalAmount": "1"}) == subscription(
        without(CONTRACT, "grandTotalAmount")
    )


@pytest.mark.parametrize(
    ("every", "item"),
    [
        ("Once", ("once", 1)),
        ("1 Day", ("day", 1)),
        ("1 Week", ("week", 1)),
        ("10 Weeks", ("week", 10)),
        ("3 Months", ("month", 3)),
        ("2 years", ("year", 2)),
    ],
)
def test_every_states_the_interval(every: str, item: tuple[str, int]) -> None:
    [line] = subscription(CONTRACT | {"every": every, "interval": "Weekly"}).items

    assert (line.interval, line.every) == item


@pytest.mark.parametrize(
    "every", ["", "Weeks", "0 Weeks", "4  Weeks", "-1 Week", "1.5 Weeks", "4 Fortnights", "٤ Weeks"]
)
def test_an_unknown_interval_is_unreadable(every: str) -> None:
    with pytest.raises(Unreadable, match=r"\$\.every"):
        subscription(CONTRACT | {"every": every})


@pytest.mark.parametrize("every", [{}, {"every": None}])
def test_once_needs_no_number(every: dict[str, Any]) -> None:
    [line] = subscription(without(CONTRACT, "every") | {"interval": "Once"} | every).items

    assert (line.interval, line.every) == ("once", 1)


@pytest.mark.parametrize("interval", [{}, {"interval": None}, {"interval": "Weekly"}, {"interval": 1}])
def test_without_its_number_another_interval_is_unreadable(interval: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match=r"\$\.every"):
        subscription(without(CONTRACT, "every", "interval") | interval)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("Active", "active"),
        ("Completed", "completed"),
        ("Inactive", "inactive"),
        ("Cancelled", "cancelled"),
        ("Deleted", "deleted"),
        ("On Hold", "on hold"),
    ],
)
def test_a_status_is_its_lower_case_word(status: str, word: str) -> None:
    data = subscription(CONTRACT | {"status": status})

    assert data.status == word
    assert (data.counts_from_on is not None) == (word == "active")


@pytest.mark.parametrize(
    ("amount", "currency", "price"),
    [
        ("512", None, "51200"),
        ("1200.50", "USD", "120050"),
        ("0.005", "USD", "0.5"),
        (19.99, "eur", "1999"),
        (7, "JPY", "7"),
        ("1.234", "KWD", "1234"),
    ],
)
def test_an_amount_is_exact_in_the_minor_unit_of_its_currency(
    amount: Any, currency: str | None, price: str
) -> None:
    data = subscription(CONTRACT | {"amount": amount, "currencyCode": currency})

    assert str(data.items[0].unit_amount) == price
    assert data.currency == (currency or "usd").lower()


@pytest.mark.parametrize(
    "amount",
    ["", "1,200", "$5", "1e3", "NaN", "Infinity", "1_0", " 1", "١", True, None, 1e300, "9" * 16, 10**13 + 1],
)
def test_what_is_no_decimal_amount_is_unreadable(amount: Any) -> None:
    with pytest.raises(Unreadable):
        subscription(CONTRACT | {"amount": amount})


@examples(100)
@given(cents=st.integers(0, 10**12 - 1), as_number=st.booleans())
def test_no_cent_is_lost(cents: int, as_number: bool) -> None:
    text = f"{cents // 100}.{cents % 100:02}"
    record = msgspec.json.decode(b'{"amount": %s}' % (text if as_number else f'"{text}"').encode())

    assert subscription(CONTRACT | record).items[0].unit_amount == cents


@pytest.mark.parametrize(
    "written", ["2025-11-20", "2025-11-20T00:00:00Z", "2025-11-20T00:00:00", "2025-11-20T23:30:00-10:00"]
)
def test_a_contracts_dates_are_calendar_dates_in_no_zone(written: str) -> None:
    data = subscription(CONTRACT | {"nextBillDate": written, "startDate": written})

    assert (data.next_bill_on, data.counts_from_on) == (date(2025, 11, 20), date(2025, 11, 20))
    assert data.counts_from is None


@pytest.mark.parametrize("unset", [None, "", "0001-01-01T00:00:00"])
def test_a_date_that_is_not_set_is_none(unset: str | None) -> None:
    data = subscription(CONTRACT | {"nextBillDate": unset, "startDate": unset})

    assert (data.next_bill_on, data.counts_from_on) == (None, None)


@pytest.mark.parametrize("bad", ["soon", "2025-02-30T00:00:00Z", "0002-01-01", "9999-12-31T23:00:00-05:00"])
@pytest.mark.parametrize("field", ["nextBillDate", "startDate"])
def test_a_date_that_is_none_is_unreadable(field: str, bad: str) -> None:
    with pytest.raises(Unreadable):
        subscription(CONTRACT | {field: bad})


def test_a_declined_payment_is_told() -> None:
    assert [c["id"] for c in CONTRACTS if subscription(c).declined] == [7288]


@pytest.mark.parametrize(
    ("fields", "customer_id"),
    [
        ({"customerName": None, "customerId": 77}, "77"),
        ({"customerName": " ", "customer": {"id": 77}}, "77"),
        ({"customerName": "", "customerNumber": "C-77"}, "C-77"),
        ({"customerId": 77}, "mx_1d6086e79b4b40a5456c"),
        ({"customerNumber": "C-77"}, "mx_1d6086e79b4b40a5456c"),
        ({"customerId": 0, "customerNumber": " "}, "mx_1d6086e79b4b40a5456c"),
        ({"customerName": None, "customer": {"name": "Avery Stone"}}, "mx_1d6086e79b4b40a5456c"),
        ({"customerName": None, "customer": "Avery Stone"}, "mx_1d6086e79b4b40a5456c"),
    ],
)
def test_a_customer_is_known_by_name_within_the_merchant_else_by_number(
    fields: dict[str, Any], customer_id: str
) -> None:
    assert subscription(CONTRACT | fields).customer_id == customer_id


def test_one_name_is_two_customers_of_two_merchants() -> None:
    assert subscription(CONTRACT).customer_id != subscription(CONTRACT | {"merchantId": 2}).customer_id


def test_a_contract_of_nobody_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="customerName"):
        subscription(without(CONTRACT, "customerName"))


def test_an_unreadable_record_is_named_by_its_index_and_keeps_out_no_other() -> None:
    payload = {"records": [*CONTRACTS[:2], CONTRACT | {"id": 1, "every": "now and then"}, CONTRACTS[2]]}

    with pytest.raises(Unreadable, match=r"^records\[2\]: [^;]*every[^;]*$") as caught:
        mxmerchant.translate(payload, SIGNED)

    assert "now and then" not in str(caught.value)
    assert caught.value.events == mxmerchant.translate({"records": CONTRACTS[:3]}, SIGNED)


def test_several_unreadable_records_are_counted() -> None:
    records = [None, CONTRACT, without(CONTRACT, "amount"), CONTRACT | {"amount": "9" * 16}]

    with pytest.raises(Unreadable, match=r"^records\[0\]: .*; and 2 more$") as caught:
        mxmerchant.translate({"records": records}, SIGNED)

    assert caught.value.events == mxmerchant.translate(CONTRACT, SIGNED)


def test_a_record_that_nothing_can_be_read_of_leaves_no_events() -> None:
    with pytest.raises(Unreadable) as caught:
        mxmerchant.translate(CONTRACT | {"every": "now and then"}, SIGNED)

    assert list(caught.value.events) == []


def _unused(customer_id: str) -> Unused:
    return Unused(original_type="contract", customer_id=customer_id)


def _told(contract: dict) -> Subscription:
    data = mxmerchant.translate(contract, SIGNED)[0].data
    assert isinstance(data, Subscription)
    return data


def test_contracts_that_a_poll_will_tell_have_no_effect_by_token() -> None:
    # given two contracts
    payload = {"records": CONTRACTS[:2]}

    # when they come with and without an API set up
    kept = mxmerchant.translate(payload, CONFIRMABLE)
    counted = mxmerchant.translate(payload, UNSIGNED)

    # then with one they are kept as unused, each under its id; without, they count and say unsigned
    contracts = [event for event in counted if isinstance(event.data, Subscription)]
    assert kept == [replace(event, data=_unused(event.data.customer_id)) for event in contracts]
    assert (len(kept), {event.trust for event in counted}) == (2, {"unsigned"})


def test_a_contract_that_a_poll_will_tell_is_read_all_the_same() -> None:
    with pytest.raises(Unreadable, match=r"records\[1\].*amount") as caught:
        mxmerchant.translate({"records": [CONTRACT, without(CONTRACT, "amount")]}, CONFIRMABLE)
    assert [event.data for event in caught.value.events] == [_unused(_told(CONTRACT).customer_id)]

    with pytest.raises(Unreadable, match="twice"):
        mxmerchant.translate({"records": [CONTRACT, CONTRACT | {"amount": "1"}]}, CONFIRMABLE)


def test_a_list_of_no_records_has_no_effect() -> None:
    [event] = mxmerchant.translate({"recordCount": 0, "records": []}, SIGNED)

    assert (event.event_id, event.data) == ("msg_1", Unused(original_type="contracts"))


def test_a_contract_stated_twice_in_one_body_is_one() -> None:
    assert mxmerchant.translate({"records": [CONTRACT, CONTRACT]}, SIGNED) == mxmerchant.translate(
        CONTRACT, SIGNED
    )
    with pytest.raises(Unreadable, match="twice") as caught:
        mxmerchant.translate({"records": [*CONTRACTS, CONTRACT | {"amount": "1"}]}, SIGNED)
    assert list(caught.value.events) == []


def test_a_later_observation_replaces_an_earlier_one_whatever_its_status() -> None:
    # given a contract seen as ended, and later as active
    ended = contracts.contract_events(CONTRACT | {"status": "Cancelled"}, OBSERVED)[0]
    active = contracts.contract_events(CONTRACT, OBSERVED + timedelta(hours=1))[0]

    # when both are in order
    last = canonical([active, ended])[-1]

    # then the later one stands
    assert last.data == active.data


def test_a_record_without_a_message_is_named_by_its_observation() -> None:
    [event, _] = contracts.contract_events(CONTRACT, datetime(2025, 11, 13, 10, tzinfo=UTC))

    assert (event.event_id, event.trust) == (
        "contract:1000000001:8797@2025-11-13T10:00:00+00:00",
        "fetched",
    )


def test_one_number_at_two_merchants_is_two_causes() -> None:
    observed = [contracts.contract_events(CONTRACT | {"merchantId": m}, OBSERVED)[0] for m in (1, 2)]
    paid = [told("PaymentSuccess", merchantId=m) for m in (1, 2)]
    deposit = {"eventType": "Deposit", "id": 5}
    unused = [mxmerchant.translate(deposit | {"merchantId": m}, SIGNED)[0] for m in (1, 2)]

    assert len({event.cause for event in [*observed, *paid, *unused]}) == 6


@pytest.mark.parametrize(
    "payload", [None, [], "x", 1, {}, {"records": None}, {"records": {}}, {"records": [None]}]
)
def test_a_body_of_no_known_kind_is_unreadable(payload: Any) -> None:
    with pytest.raises(Unreadable):
        mxmerchant.translate(payload, SIGNED)


# Notifications


def test_a_success_is_a_payment() -> None:
    event, named = mxmerchant.translate(fixture("PaymentSuccess"), SIGNED)

    assert (event.account, event.event_id, event.trust) == (
        MERCHANT,
        f"{MERCHANT}:PaymentSuccess:22343388",
        "signed",
    )
    assert event.occurred_at == datetime(2018, 8, 9, 18, 21, tzinfo=UTC)
    assert event.data == Payment(
        payment_id="22343388",
        status="succeeded",
        currency="usd",
        amount=1111,
        customer_id=subscription(CONTRACT).customer_id,
        invoice_id="Z009BQGM",
    )
    assert named.event_id == f"{MERCHANT}:PaymentSuccess:22343388:customer"
    assert isinstance(named.data, Customer)
    assert named.data.name == "Avery Stone"


def test_a_failure_is_a_failed_payment() -> None:
    [event] = mxmerchant.translate(fixture("PaymentFail"), SIGNED)

    assert event.occurred_at == datetime(2018, 8, 9, 18, 56, tzinfo=UTC)
    assert event.data == Payment(
        payment_id="22343395", status="failed", currency="usd", amount=1111, invoice_id="Z00AJPR8"
    )


def test_a_refunds_negative_total_is_its_amount() -> None:
    assert told("RefundCreated").data == Refund(
        refund_id="22343393",
        status="succeeded",
        currency="usd",
        amount=1000,
        created_at=datetime(2018, 8, 9, 18, 53, tzinfo=UTC),
        customer_id="mx_b221b5936d28979fcc58",
    )


def test_a_chargeback_is_a_lost_dispute() -> None:
    event = told("Chargeback")

    assert event.occurred_at == datetime(2018, 9, 12, 0, 5, tzinfo=UTC)
    assert isinstance(event.data, Dispute)
    assert (event.data.dispute_id, event.data.status, event.data.amount) == ("22343377", "lost", 4550)


@pytest.mark.parametrize("name", ["RefundCreated", "Chargeback"])
@pytest.mark.parametrize("field", ["paymentId", "originalPaymentId", "originalId"])
def test_a_refund_joins_its_payments_history_where_it_names_it(name: str, field: str) -> None:
    assert set(subjects(told(name, SIGNED, **{field: 22343388}))) < set(subjects(told("PaymentSuccess")))
    assert not set(subjects(told(name))) & set(subjects(told("PaymentSuccess")))


def test_an_unsigned_notification_says_so_and_waits_only_where_it_can_be_confirmed() -> None:
    waiting, standing, signed = (told("PaymentSuccess", proof) for proof in (CONFIRMABLE, UNSIGNED, SIGNED))

    assert waiting.event_id == standing.event_id == f"{MERCHANT}:PaymentSuccess:22343388:unsigned"
    assert (waiting.trust, standing.trust, signed.trust) == ("unsigned", "unsigned", "signed")
    assert [
        e.data.awaits_confirmation for e in (waiting, standing, signed) if isinstance(e.data, Payment)
    ] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("name", TYPES)
def test_the_keys_that_are_needed_are_few(name: str) -> None:
    bare = {key: fixture(name)[key] for key in ("eventType", "merchantId", "id", "totalAmount")}

    [event] = mxmerchant.translate(bare, SIGNED)

    assert event.occurred_at == OBSERVED


@pytest.mark.parametrize("name", [name for name in TYPES if name != "PaymentFail"])
def test_without_the_amount_that_moved_it_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable, match="totalAmount"):
        mxmerchant.translate(without(fixture(name), "totalAmount"), SIGNED)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("nothing", [{}, {"id": None}, {"id": ""}])
def test_without_an_id_a_notification_is_known_by_its_content(name: str, nothing: dict[str, Any]) -> None:
    bare = without(fixture(name), "id", "merchantId") | nothing
    later = replace(SIGNED, message_id="msg_2", signed_at=OBSERVED + timedelta(hours=1))

    first, again = (mxmerchant.translate(bare, proof)[0] for proof in (SIGNED, later))
    other = mxmerchant.translate(bare | {"invoiceNumber": "other"}, SIGNED)[0]

    assert first.event_id == again.event_id != other.event_id
    assert first.account == ""


@pytest.mark.parametrize("total", [{}, {"totalAmount": None}, {"totalAmount": ""}])
def test_a_decline_needs_no_amount_and_what_a_fetch_will_confirm_neither(total: dict[str, Any]) -> None:
    for name, proof in (("PaymentFail", SIGNED), ("PaymentSuccess", CONFIRMABLE)):
        event, *_ = mxmerchant.translate(without(fixture(name), "totalAmount") | total, proof)
        assert isinstance(event.data, Payment)
        assert event.data.amount == 0


@pytest.mark.parametrize("number", ["1053", 88, "A-7"])
def test_the_tries_at_one_payment_have_its_invoices_number(number: Any) -> None:
    tries = [told(name, invoiceNumber=number).data for name in ("PaymentFail", "PaymentSuccess")]

    assert [data.invoice_id for data in tries if isinstance(data, Payment)] == [str(number)] * 2


@pytest.mark.parametrize("number", [None, "", " ", 0, [], {"no": 1}])
def test_without_a_number_a_try_is_of_no_invoice(number: Any) -> None:
    data = told("PaymentFail", invoiceNumber=number).data

    assert isinstance(data, Payment)
    assert data.invoice_id is None


# Days and times


MONTHLY = CONTRACT | {"interval": "Monthly", "every": "1 Month"}


@pytest.mark.parametrize(
    ("on", "day"),
    [("31", 31), (31, 31), (" 07 ", 7), ("1st", 1), ("22nd", 22), ("0", None), ("32", None), ("Monday", None),
     ("2025-10-30", None), (None, None), ([], None)],
)  # fmt: skip
def test_the_day_of_the_month_on_which_a_contract_bills_is_kept(on: Any, day: int | None) -> None:
    data = subscription(MONTHLY | {"on": on, "startDate": "2025-08-31T12:00:00Z"})

    assert (data.anchor_day, data.anchor_on) == (day, date(2025, 8, 31))


def test_a_week_has_no_day_of_the_month() -> None:
    data = subscription(CONTRACT | {"on": "5", "startDate": "2025-08-31T12:00:00Z"})

    assert (data.anchor_day, data.anchor_on) == (None, None)


@pytest.mark.parametrize(
    ("created", "moment"),
    [
        ("2018-08-09T23:59:59.9999999Z", datetime(2018, 8, 9, 23, 59, 59, 999999, UTC)),
        ("2018-08-09T23:59:59.9999999", datetime(2018, 8, 9, 23, 59, 59, 999999, UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999999, UTC)),
        ("2018-08-09T18:53:00.1234567-04:00", datetime(2018, 8, 9, 22, 53, 0, 123456, UTC)),
    ],
)
def test_a_time_finer_than_a_microsecond_stays_on_its_day(created: str, moment: datetime) -> None:
    record = fixture("refund") | {"created": created}

    assert payments.confirmation(record, told("RefundCreated", CONFIRMABLE), OBSERVED).occurred_at == moment


@pytest.mark.parametrize("proof", [SIGNED, UNSIGNED])
@pytest.mark.parametrize(
    "body", [{"eventType": "BatchClosed"}, {"eventType": "Deposit", "id": 5, "merchantId": "9"}]
)
def test_a_notification_of_another_type_has_no_effect(proof: Proof, body: dict[str, Any]) -> None:
    [event] = mxmerchant.translate(body, proof)

    assert event.data == Unused(original_type=body["eventType"])
    assert event.event_id.startswith(f"{body.get('merchantId', '')}:{body['eventType']}:")


@pytest.mark.parametrize("event_type", [None, "", 5, [], "x" * 101])
def test_an_event_type_that_is_no_name_is_unreadable(event_type: Any) -> None:
    with pytest.raises(Unreadable, match="eventType"):
        mxmerchant.translate({"eventType": event_type}, SIGNED)


@pytest.mark.parametrize(
    "fields", [{"totalAmount": "-1"}, {"totalAmount": "0.001"}, {"id": "../5"}, {"id": "1:unsigned"}]
)
def test_a_payment_that_cannot_be_is_unreadable(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        told("PaymentSuccess", **fields)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@examples(200)
@given(
    data=st.data(),
    body=st.sampled_from([CONTRACT, *map(fixture, TYPES)]),
    proof=st.sampled_from([SIGNED, UNSIGNED, CONFIRMABLE]),
)
def test_any_field_removed_or_replaced_is_translated_or_unreadable(
    data: st.DataObject, body: dict[str, Any], proof: Proof
) -> None:
    key = data.draw(st.sampled_from(sorted(body)))
    other = data.draw(st.just(...) | JSON)

    events, refusal = [], ""
    try:
        events = mxmerchant.translate(without(body, key) | ({} if other is ... else {key: other}), proof)
    except Unreadable as error:
        refusal = str(error)

    assert bool(events) != bool(refusal)
    assert not isinstance(other, str) or len(other) < 4 or other not in refusal
    for event in events:
        assert msgspec.json.decode(msgspec.json.encode(event.data), type=type(event.data)) == event.data


# Confirmations


@pytest.mark.parametrize(("name", "record"), [("PaymentSuccess", "payment"), ("RefundCreated", "refund")])
def test_a_fetched_record_confirms_what_was_told(name: str, record: str) -> None:
    notification = told(name, CONFIRMABLE)

    event = payments.confirmation(fixture(record), notification, OBSERVED)

    assert event.event_id == f"{MERCHANT}:{name}:{fixture(record)['id']}:fetched"
    assert event.trust == "fetched"
    assert event.occurred_at == datetime.fromisoformat(fixture(record)["created"])
    told_data, data = (msgspec.to_builtins(e.data) for e in (notification, event))
    own = ("created_at", "customer_id")  # the fetched record's
    assert without(data, *own) == without(told_data, *own, "awaits_confirmation")
    assert canonical([event, notification])[-1] == event


@pytest.mark.parametrize(
    ("name", "record", "status", "word"),
    [
        ("PaymentSuccess", "payment", "Settled", "succeeded"),
        ("PaymentSuccess", "payment", "Declined", "failed"),
        ("PaymentSuccess", "payment", "Voided", "voided"),
        ("PaymentSuccess", "payment", "AuthOnly", "pending"),
        ("PaymentSuccess", "payment", "Something New", "pending"),
        ("PaymentSuccess", "payment", None, "succeeded"),
        ("PaymentFail", "payment", "Declined", "failed"),
        ("RefundCreated", "refund", "Approved", "succeeded"),
        ("RefundCreated", "refund", "Declined", "failed"),
        ("RefundCreated", "refund", "Voided", "canceled"),
        ("Chargeback", "payment", "Chargedback", "lost"),
        ("Chargeback", "payment", "Settled", "under_review"),
    ],
)
def test_the_fetched_status_decides(name: str, record: str, status: str | None, word: str) -> None:
    notification = told(name, CONFIRMABLE)
    payment = fixture(record) | {"id": fixture(name)["id"], "status": status}

    data = payments.confirmation(payment, notification, OBSERVED).data

    assert isinstance(data, Payment | Refund | Dispute)
    assert data.status == word


def test_the_fetched_amount_decides() -> None:
    payment = fixture("payment") | {"amount": "9.99"}

    data = payments.confirmation(payment, told("PaymentSuccess", CONFIRMABLE), OBSERVED).data

    assert isinstance(data, Payment)
    assert data.amount == 999


@pytest.mark.parametrize(("name", "amount"), [("PaymentSuccess", "-11.11"), ("RefundCreated", "11.11")])
def test_a_sale_confirms_no_refund_and_a_refund_no_sale(name: str, amount: str) -> None:
    payment = fixture("payment") | {"id": fixture(name)["id"], "amount": amount}

    data = payments.confirmation(payment, told(name, CONFIRMABLE), OBSERVED).data

    assert isinstance(data, Payment | Refund)
    assert data.status == "failed"


@pytest.mark.parametrize("fields", [{"id": 5}, {"merchantId": 2}, {"amount": "much"}, {"created": "once"}])
def test_anothers_record_or_an_unreadable_one_confirms_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        payments.confirmation(fixture("payment") | fields, told("PaymentSuccess", CONFIRMABLE), OBSERVED)


@examples(100)
@given(data=st.data(), name=st.sampled_from(TYPES), other=st.just(...) | JSON)
def test_any_field_of_a_fetched_record_removed_or_replaced_confirms_or_is_unreadable(
    data: st.DataObject, name: str, other: Any
) -> None:
    payment = fixture("payment") | {"id": fixture(name)["id"]}
    key = data.draw(st.sampled_from(sorted(payment)))

    try:
        event = payments.confirmation(
            without(payment, key) | ({} if other is ... else {key: other}), told(name, CONFIRMABLE), OBSERVED
        )
    except Unreadable:
        return
    assert isinstance(event.data, Payment | Refund | Dispute)
    assert not event.data.awaits_confirmation


def test_nothing_confirms_a_contract() -> None:
    [contract, _] = mxmerchant.translate(CONTRACT, UNSIGNED)

    with pytest.raises(Unreadable):
        payments.confirmation(fixture("payment"), contract, OBSERVED)


def test_a_bare_record_confirms_with_what_was_told_and_never_happened_after_it_was_seen() -> None:
    notification = told("RefundCreated", CONFIRMABLE, transactionDate="Aug 9 2099 6:53PM")

    event = payments.confirmation({"id": 22343393, "status": "Settled"}, notification, OBSERVED)

    assert event.occurred_at == OBSERVED
    assert isinstance(event.data, Refund)
    assert (event.data.amount, event.data.status, event.data.created_at) == (1000, "succeeded", OBSERVED)
    assert event.data.customer_id == told("RefundCreated").data.customer_id


@pytest.mark.parametrize(
    "customer",
    [
        {"customerName": None, "customer": None, "customerNumber": "C-1"},
        {"customerName": "", "customer": {"id": "C-1"}},
    ],
)
def test_the_fetched_customer_decides(customer: dict[str, Any]) -> None:
    notification = told("RefundCreated", CONFIRMABLE)

    data = payments.confirmation(fixture("refund") | customer, notification, OBSERVED).data

    assert isinstance(data, Refund)
    assert data.customer_id == "C-1"


@pytest.mark.parametrize(
    "fields", [{}, {"amount": None, "status": None}, {"status": ""}, {"customerName": "Avery Stone"}]
)
def test_a_fetched_record_of_neither_amount_nor_status_confirms_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="neither amount nor status"):
        payments.confirmation({"id": 22343388} | fields, told("PaymentSuccess", CONFIRMABLE), OBSERVED)


def test_a_refund_is_confirmed_by_its_own_id_and_not_by_its_payments() -> None:
    notification = told("RefundCreated", CONFIRMABLE, paymentId=22343388)

    assert isinstance(notification.data, Refund)
    assert payments.api_payment_id(notification.data) == "22343393"
    assert payments.confirmation(fixture("refund"), notification, OBSERVED).trust == "fetched"
    with pytest.raises(Unreadable, match="not the one"):
        payments.confirmation(fixture("payment"), notification, OBSERVED)


# Polling


def known(events: list[Event]) -> dict[str, Data]:
    return {subject: event.data for event in events for subject in subjects(event)}


def polled(records: list[dict[str, Any]], observed_at: datetime = OBSERVED) -> list[Event]:
    return [event for record in records for event in contracts.contract_events(record, observed_at)]


def test_a_poll_that_finds_nothing_new_tells_nothing() -> None:
    first = changed_events(polled(CONTRACTS), {})

    assert {e.type for e in first} == {"subscription.recorded", "customer.recorded"}
    assert changed_events(polled(CONTRACTS, OBSERVED + timedelta(hours=1)), known(first)) == []


def test_a_poll_tells_only_what_changed() -> None:
    later = [*CONTRACTS[1:], CONTRACT | {"amount": "600.00", "grandTotalAmount": "5"}]

    [event] = changed_events(polled(later, OBSERVED + timedelta(hours=1)), known(polled(CONTRACTS)))

    assert subjects(event) == ["subscription|mxmerchant|1000000001|8797"]


def test_contracts_of_one_customer_tell_the_name_once() -> None:
    records = [CONTRACT | {"id": i, "customerNumber": number} for i, number in ((1, "C-1"), (2, None))]
    first = changed_events(polled(records), {})

    assert [e.data.name for e in first if isinstance(e.data, Customer)] == ["Avery Stone"]
    assert changed_events(polled(records[::-1]), known(first)) == []


@pytest.mark.parametrize("status", ["Cancelled", "Deleted", "Inactive", "Completed"])
@pytest.mark.parametrize(
    "spoilt",
    [
        {"every": "Fortnight"},
        {"amount": None},
        {"amount": "n/a", "nextBillDate": "soon"},
        {"currencyCode": "??"},
        {"customerName": None, "customer": None, "customerId": None, "customerNumber": None},
    ],
)
def test_a_contract_that_has_ended_is_read_whatever_else_it_holds(
    status: str, spoilt: dict[str, Any]
) -> None:
    ended, *_ = contracts.contract_events(CONTRACT | {"status": status} | spoilt, OBSERVED)
    assert (ended.data.status, ended.data.items) == (status.lower(), ())
    with pytest.raises(Unreadable):
        contracts.contract_events(CONTRACT | {"status": "Active"} | spoilt, OBSERVED)


def test_only_a_fetch_can_say_that_a_contract_is_missing_from_the_list():
    [event, _] = mxmerchant.translate(CONTRACT, SIGNED)
    body = contracts.missing_contract(event.data, event.account, 13)

    [ended] = mxmerchant.translate(body, replace(SIGNED, method="fetch", message_id=None))
    assert (ended.data, ended.account) == (
        replace(event.data, status="deleted", next_bill_on=None),
        event.account,
    )
    with pytest.raises(Unreadable):
        mxmerchant.translate(body, SIGNED)
