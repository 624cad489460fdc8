import base64
import hmac
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from handlers import standard
from handlers.standard import translation
from service.core.delivery import Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import NOT_POSTED, TYPES, Customer, Event, Item, Subscription, Unused
from service.core.order import canonical
from tests.support.effort import examples
from tests.support.paths import FIXTURES, ROOT

STANDARD = FIXTURES / "standard"
VECTOR: dict[str, Any] = json.loads((STANDARD / "signature_vectors.json").read_bytes())["standard_webhooks"]
UNREADABLE: list[dict[str, Any]] = json.loads((STANDARD / "unreadable.json").read_bytes())
EXAMPLES: list[dict[str, Any]] = [
    json.loads(block)
    for block in re.findall(r"(?s)```json\n(.*?)```", (ROOT / "docs/events.md").read_text("utf-8"))
]

SECRET, BODY, SIGNED_AT = (
    VECTOR["secret"],
    VECTOR["body"].encode(),
    datetime.fromtimestamp(VECTOR["timestamp"], UTC),
)
HEADERS = {
    ":name": "acme",
    "webhook-id": VECTOR["id"],
    "webhook-timestamp": str(VECTOR["timestamp"]),
    "webhook-signature": VECTOR["signature"],
}
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of the same biller").decode()
PROOF = Proof(
    processor="standard.acme",
    method="standard-webhooks",
    received_at=datetime(2025, 11, 3, 8, 0, 2, tzinfo=UTC),
    message_id="msg_1",
    signed_at=datetime(2025, 11, 3, 8, 0, 1, tzinfo=UTC),
    secret=1,
)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature by the specification's words alone, without the library that the handler uses."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def refused(
    headers: dict[str, str], body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), late: float = 0
) -> str:
    with pytest.raises(VerificationError) as caught:
        standard.verify(headers, body, secrets, SIGNED_AT + timedelta(seconds=late))
    text = str(caught.value)
    for hidden in (SECRET, SECRET[6:], VECTOR["signature"], VECTOR["signature"][3:], "2432232314"):
        assert hidden not in text
    return text


def translated(body: Any) -> Event:
    [event] = translation.translate(body, PROOF)
    return event


# Verification


def test_the_specifications_vector_is_proved_at_its_time() -> None:
    proof = standard.verify(HEADERS, BODY, (SECRET,), SIGNED_AT)

    assert proof == Proof(
        processor="standard.acme",
        method="standard-webhooks",
        received_at=SIGNED_AT,
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        signed_at=SIGNED_AT,
        secret=1,
    )


def test_the_vectors_bad_signature_is_refused() -> None:
    refused(HEADERS | {"webhook-signature": VECTOR["bad_signature"]})


@pytest.mark.parametrize("late", [-300, 0, 300])
def test_a_timestamp_of_up_to_300_seconds_either_way_is_accepted(late: int) -> None:
    assert (
        standard.verify(HEADERS, BODY, (SECRET,), SIGNED_AT + timedelta(seconds=late)).signed_at == SIGNED_AT
    )


@pytest.mark.parametrize("late", [-301, 301, 10**9])
def test_a_timestamp_of_over_300_seconds_either_way_is_refused(late: int) -> None:
    assert "300 seconds" in refused(HEADERS, late=late)


def test_any_of_several_signatures_is_enough() -> None:
    several = f"v1a,ed25519 {VECTOR['bad_signature']} {VECTOR['signature']} v1,"

    assert standard.verify(HEADERS | {"webhook-signature": several}, BODY, (SECRET,), SIGNED_AT).secret == 1


def test_the_proof_counts_which_secret_it_was() -> None:
    assert standard.verify(HEADERS, BODY, (OTHER_SECRET, SECRET), SIGNED_AT).secret == 2


def test_headers_by_the_names_of_the_standards_first_sender_prove_as_well() -> None:
    renamed = {name.replace("webhook-", "svix-"): value for name, value in HEADERS.items()}

    assert standard.verify(renamed, BODY, (SECRET,), SIGNED_AT).message_id == VECTOR["id"]
    refused({name: value for name, value in renamed.items() if name != "svix-timestamp"})
    refused(HEADERS | renamed | {"webhook-signature": VECTOR["bad_signature"]})


def test_another_secret_proves_nothing() -> None:
    refused(HEADERS, secrets=(OTHER_SECRET,))
    refused(HEADERS, secrets=())


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_A", "whsec_ä"])
def test_a_malformed_secret_is_a_refusal_and_nothing_else(secret: str) -> None:
    refused(HEADERS, secrets=(secret,))


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature", ":name"])
def test_each_header_is_needed(missing: str) -> None:
    refused({name: value for name, value in HEADERS.items() if name != missing})


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", "msg 1"),
        ("webhook-id", "m" * 256),
        ("webhook-timestamp", "1614265330.0"),
        ("webhook-timestamp", "01614265330"),
        ("webhook-timestamp", "+1614265330"),
        ("webhook-timestamp", " 1614265330"),
        ("webhook-timestamp", "١٦١٤٢٦٥٣٣٠"),
        ("webhook-timestamp", "99999999999"),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,é"),
        ("webhook-signature", VECTOR["signature"].replace("v1,", "v2,")),
        ("webhook-signature", VECTOR["signature"].rstrip("=")),
        (":name", "Acme"),
        (":name", "../acme"),
        (":name", "acme\n"),
    ],
)
def test_a_malformed_header_is_refused(header: str, value: str) -> None:
    refused(HEADERS | {header: value})


def test_a_body_that_is_not_utf8_needs_its_own_signature() -> None:
    refused(HEADERS, body=b"\xff")


@examples(60)
@given(at=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused(at: int, flip: int) -> None:
    refused(HEADERS, body=BODY[:at] + bytes([BODY[at] ^ flip]) + BODY[at + 1 :])


@examples(40)
@given(
    body=st.binary(max_size=200).filter(lambda b: b.decode(errors="ignore").encode() == b),
    stamp=st.integers(1, 10**10),
)
def test_what_is_signed_as_the_specification_says_is_proved(body: bytes, stamp: int) -> None:
    headers = HEADERS | {
        "webhook-timestamp": str(stamp),
        "webhook-signature": signature(SECRET, VECTOR["id"], stamp, body),
    }

    assert (
        standard.verify(headers, body, (SECRET,), datetime.fromtimestamp(stamp, UTC)).message_id
        == VECTOR["id"]
    )


# Translation


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda b: b["type"])
def test_every_example_of_the_documentation_translates(body: dict[str, Any]) -> None:
    event = translated(body)

    assert event.type == body["type"]
    assert event.cause == "standard.acme:msg_1"
    assert event.account == body.get("account", "")
    assert event.occurred_at == datetime.fromisoformat(body["occurred_at"])
    assert event.trust == "signed"


def test_the_documentation_has_an_example_of_every_type() -> None:
    assert {body["type"] for body in EXAMPLES} == {
        name for name, data in TYPES.items() if data not in NOT_POSTED
    }


def test_times_are_kept_in_utc_and_prices_in_plain_digits() -> None:
    body = EXAMPLES[0] | {
        "data": EXAMPLES[0]["data"]
        | {
            "next_bill_at": "2025-12-01T00:30:00+02:00",
            "items": [{"interval": "week", "unit_amount": "1.50E+2"}],
        }
    }

    event = translated(body)

    assert event.occurred_at.isoformat() == "2025-11-03T08:30:00+00:00"
    assert isinstance(event.data, Subscription)
    assert event.data.next_bill_at is not None
    assert event.data.next_bill_at.isoformat() == "2025-11-30T22:30:00+00:00"
    assert event.data.next_bill_on == date(2025, 12, 1)
    assert event.data.items == (Item(interval="week", unit_amount=Decimal(150)),)
    assert str(event.data.items[0].unit_amount) == "150"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-10-31T23:59:59.9999999Z", "2025-10-31T23:59:59.999999+00:00"),
        ("2026-02-28T21:14:15.000000999+05:30", "2026-02-28T15:44:15+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999+00:00"),
        ("2016-12-31T18:59:60.25-05:00", "2016-12-31T23:59:59.999999+00:00"),
        ("2024-02-29t08:00:00z", "2024-02-29T08:00:00+00:00"),
        ("2024-02-29T08:00:00-00:00", "2024-02-29T08:00:00+00:00"),
        ("2024-02-29 23:59:59.9999999Z", "2024-02-29T23:59:59.999999+00:00"),
        ("2024-02-29T23:59:59.9999999+0000", "2024-02-29T23:59:59.999999+00:00"),
    ],
)
def test_a_time_is_never_rounded_into_the_next_second(text: str, moment: str) -> None:
    assert translated(EXAMPLES[1] | {"occurred_at": text}).occurred_at.isoformat() == moment


@pytest.mark.parametrize(
    "text", ["2025-10-31T23:59:59.9999999Z", "2016-12-31T23:59:60z", "2024-02-29t08:00:00+01:00"]
)
def test_the_schema_takes_every_time_of_rfc_3339(text: str) -> None:
    VALIDATOR.validate(EXAMPLES[1] | {"occurred_at": text})


@given(st.integers(0, 59), st.text("0123456789", min_size=1, max_size=30))
def test_digits_after_the_sixth_change_nothing(second: int, digits: str) -> None:
    text = f"2025-11-03T09:30:{second:02}.{digits}Z"
    exact = datetime(2025, 11, 3, 9, 30, second, int(digits[:6].ljust(6, "0")), UTC)

    assert translated(EXAMPLES[1] | {"occurred_at": text}).occurred_at == exact


@pytest.mark.parametrize(
    "text",
    ["2025-11-03T09:30Z", "2025-11-03T09Z", "2025-11-03", "2025-11-03T09:30:61Z", "2025-11-03T09:30:00.Z"],
)
def test_a_time_of_another_form_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable, match="occurred_at"):
        translated(EXAMPLES[1] | {"occurred_at": text})
    assert not VALIDATOR.is_valid(EXAMPLES[1] | {"occurred_at": text})


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda b: b["type"])
def test_every_time_of_a_body_is_cut(body: dict[str, Any]) -> None:
    leap = body
    for path in paths(body):
        if str(path[-1]).endswith("_at"):
            leap = altered(leap, path, "2016-12-31T23:59:60Z")

    assert b":59.999999Z" in msgspec.json.encode([translated(leap).data, translated(leap).occurred_at])


def test_every_field_that_is_a_moment_is_known_by_its_name() -> None:
    properties = [
        (name, json.dumps(shape))
        for definition in translation.event_schema()["$defs"].values()
        for name, shape in definition.get("properties", {}).items()
    ]
    moments = {name for name, shape in properties if "[Tt]" in shape}

    assert {"occurred_at", "ends_at", "counts_from"} < moments
    assert all(translation._TIME_FIELD.fullmatch(name) for name in moments)


def test_a_body_may_be_deeper_than_its_times() -> None:
    deep: Any = "2016-12-31T23:59:60Z"
    for _ in range(5000):
        deep = {"more_at": deep}

    assert translated(EXAMPLES[1] | {"sent": deep}) == translated(EXAMPLES[1])


# Amounts


@pytest.mark.parametrize("amount", [10**15, 10**15 - 1, 1_260_000_000_000])
def test_an_amount_may_be_as_large_as_rupiah_make_it(amount: int) -> None:
    paid = {"payment_id": "p", "status": "succeeded", "currency": "idr", "amount": amount}
    body = {"type": "payment.recorded", "occurred_at": "2025-11-03T08:00:00Z", "data": paid}

    assert translated(body).data.amount == amount  # type: ignore[attr-defined]
    VALIDATOR.validate(body)


@pytest.mark.parametrize("price", ["-500", "-0.25"])
def test_a_credit_is_an_item_with_a_negative_price(price: str) -> None:
    items = [{"interval": "month", "unit_amount": "2000"}, {"interval": "month", "unit_amount": price}]
    body = altered(EXAMPLES[0], ["data", "items"], items)

    data = translated(body).data
    assert isinstance(data, Subscription)
    assert [item.unit_amount for item in data.items] == [Decimal(2000), Decimal(price)]
    VALIDATOR.validate(body)


def test_what_a_body_leaves_out_is_left_out_of_the_ledger() -> None:
    assert b"inclusive_tax" not in msgspec.json.encode(translated(EXAMPLES[0]).data)


def test_fields_that_are_not_known_are_tolerated() -> None:
    body = EXAMPLES[1] | {"sent_by": "cron", "data": EXAMPLES[1]["data"] | {"shoe_size": 43}}

    assert translated(body) == translated(EXAMPLES[1])


def test_an_unknown_type_is_ordinary_input_without_effect() -> None:
    event = translated(
        {"type": "coffee.brewed", "occurred_at": "2025-11-03T09:00:00+01:00", "account": "emea"}
    )

    assert event.data == Unused(original_type="coffee.brewed")
    assert (event.account, event.occurred_at) == ("emea", datetime(2025, 11, 3, 8, tzinfo=UTC))


@pytest.mark.parametrize("occurred_at", [None, "yesterday", 5, "0001-01-01T00:00:00+14:00"])
def test_an_unknown_type_without_a_readable_time_happened_when_it_was_signed(occurred_at: Any) -> None:
    assert translated({"type": "unused", "occurred_at": occurred_at}).occurred_at == PROOF.signed_at


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda c: str(c["at"]))
def test_bad_data_is_unreadable_and_named_by_its_path_not_by_its_value(case: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as caught:
        translation.translate(case["body"], PROOF)

    assert case["at"] in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("status", ["canceled", "Cancelled", "completed", "deleted"])
@pytest.mark.parametrize(
    "spoilt",
    [
        {"items": None},
        {"items": [{"interval": "quarter", "unit_amount": "1"}]},
        {"items": [{"interval": "month", "every": 0}]},
        {"currency": None, "customer_id": None},
    ],
)
def test_a_contract_that_has_ended_is_read_whatever_else_it_holds(
    status: str, spoilt: dict[str, Any]
) -> None:
    data = {"subscription_id": "s_1", "customer_id": "c_1", "currency": "usd", "items": []}
    body = {"type": "subscription.recorded", "occurred_at": "2025-11-03T09:00:00Z"}
    ended = translated(body | {"data": data | {"status": status} | spoilt}).data
    assert (ended.status, ended.items) == (status.lower(), ())
    with pytest.raises(Unreadable):
        translation.translate(body | {"data": data | {"status": "active"} | spoilt}, PROOF)


@pytest.mark.parametrize("payload", [None, [], "text", 1, 1.5, True, {}])
def test_a_body_that_is_no_event_is_unreadable(payload: Any) -> None:
    with pytest.raises(Unreadable):
        translation.translate(payload, PROOF)


def test_before_chains_the_events_of_one_moment() -> None:
    # given three states of one customer within a moment, told with what was before
    names = ["Zoe", "Yan", "Xia"]
    bodies = [
        {
            "type": "customer.recorded",
            "occurred_at": "2025-11-03T08:00:00Z",
            "data": {"customer_id": "c", "name": name},
        }
        for name in names
    ]
    for earlier, later in pairwise(bodies):
        later["before"] = earlier["data"]
    ids = ["c", "b", "a"]

    # when they are put in order, against the order of their ids
    events = [
        translation.translate(body, msgspec.structs.replace(PROOF, message_id=event_id))[0]
        for body, event_id in zip(bodies, ids, strict=True)
    ]

    # then what was before decides
    assert [e.data.name for e in canonical(reversed(events)) if isinstance(e.data, Customer)] == names


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("draft", "open"),
        ("open", "uncollectible"),
        ("uncollectible", "paid"),
        ("paid", "deleted"),
        ("open", "void"),
    ],
)
def test_an_invoices_statuses_of_one_moment_are_ranked(earlier: str, later: str) -> None:
    [body] = [b for b in EXAMPLES if b["type"] == "invoice.recorded"]

    ranks = [
        translated(body | {"data": body["data"] | {"status": status}}).rank for status in (earlier, later)
    ]

    assert ranks[0] < ranks[1]


def test_what_ends_a_thing_comes_last_in_its_moment() -> None:
    gone = {
        "type": "customer.recorded",
        "occurred_at": "2025-11-03T08:00:00Z",
        "data": {"customer_id": "c", "deleted": True},
    }
    canceled = EXAMPLES[0] | {"data": EXAMPLES[0]["data"] | {"status": "canceled"}}

    [applied] = [b for b in EXAMPLES if b["type"] == "discount.recorded"]
    removed = altered(applied, ["data", "deleted"], True)

    assert translated(removed).rank > translated(applied).rank
    assert translated(gone).rank > translated(EXAMPLES[1]).rank
    assert translated(canceled).rank > translated(EXAMPLES[0]).rank


# The published schema


VALIDATOR = Draft202012Validator(translation.event_schema())


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda b: b["type"])
def test_the_schema_accepts_every_example(body: dict[str, Any]) -> None:
    VALIDATOR.validate(body)


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda c: str(c["at"]))
def test_the_schema_refuses_what_is_unreadable(case: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(case["body"])


def test_the_schema_is_plain_json_under_its_own_name() -> None:
    schema = translation.event_schema()

    Draft202012Validator.check_schema(schema)
    assert json.loads(msgspec.json.encode(schema)) == schema
    assert schema["$id"] == "urn:daybook:event"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def altered(value: Any, path: list[Any], other: Any) -> Any:
    """`value` with what stands at `path` replaced; taken away where `other` is Ellipsis."""
    here, *rest = path
    copy = list(value) if isinstance(value, list) else dict(value)
    if rest:
        copy[here] = altered(copy[here], rest, other)
    elif other is ...:
        del copy[here]
    else:
        copy[here] = other
    return copy


def paths(value: Any) -> list[list[Any]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path for key, child in children for path in [[key], *([key, *rest] for rest in paths(child))]]


def has_float(value: Any) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, float) or any(map(has_float, children))


@examples(200)
@given(data=st.data(), body=st.sampled_from(EXAMPLES))
def test_any_field_removed_or_replaced_is_translated_or_unreadable_and_the_schema_promises_no_more(
    data: st.DataObject, body: dict[str, Any]
) -> None:
    changed = altered(body, data.draw(st.sampled_from(paths(body))), data.draw(st.just(...) | JSON))
    changed = msgspec.json.decode(msgspec.json.encode(changed))

    try:
        event = translated(changed)
    except Unreadable:
        assert not VALIDATOR.is_valid(changed) or has_float(changed)  # 1.0 is an integer to JSON Schema alone
    else:
        assert event.type == changed["type"] or isinstance(event.data, Unused)


@pytest.mark.parametrize(
    ("example", "word"),
    [("payment.recorded", "SUCCEEDED"), ("invoice.recorded", "Paid"), ("dispute.recorded", "LOST")],
)
def test_a_status_word_is_read_in_any_case(example: str, word: str) -> None:
    body = next(body for body in EXAMPLES if body["type"] == example)
    event = translated({**body, "data": body["data"] | {"status": word}})
    assert event.data.status == word.lower()  # type: ignore[attr-defined]
    assert event.rank == translated({**body, "data": body["data"] | {"status": word.lower()}}).rank
