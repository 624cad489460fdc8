"""An object is recorded as observed once for each time that it has become so."""

from datetime import UTC, datetime, timedelta

from msgspec import json
from msgspec.structs import replace

from handlers import stripe
from service.intake.translation import content_digest
from service.sync.observations import observation_proof
from tests.support.events import event, subscription

NOW = datetime(2025, 11, 13, 12, tzinfo=UTC)


def observed(*bodies: bytes) -> list[str]:
    """The ids under which these contents are recorded, one an hour; "" where nothing is."""
    history, ids = [event(subscription(), "2025-11-01")], []
    for hours, body in enumerate(bodies):
        now = NOW + timedelta(hours=hours)
        digest = content_digest(json.decode(body), stripe.PROCESSOR)
        proof = observation_proof("stripe", "acct_1", "sub_1", digest, history, now)
        ids.append((proof and proof.message_id) or "")
        if proof:
            assert (proof.account, proof.received_at, proof.is_observation) == ("acct_1", now, True)
            history.append(replace(history[0], event_id=ids[-1], occurred_at=now))
    return ids


def test_content_like_the_last_observation_is_not_recorded_again() -> None:
    first, *others = observed(b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}', b'{"a":1,"b":2}')
    assert first.startswith("sub_1@")
    assert others == ["", ""]


def test_content_that_comes_back_is_recorded_with_how_often_it_was_seen() -> None:
    one, two, again, twice, same = observed(b'{"a": 1}', b'{"a": 2}', b'{"a": 1}', b'{"a": 2}', b'{"a": 2}')
    assert (again, twice, same) == (one[:-1] + "2", two[:-1] + "2", "")


def test_observations_of_an_object_with_a_longer_id_are_anothers() -> None:
    history = [replace(event(subscription(), "2025-11-01"), event_id="sub_12@0:1")]
    proof = observation_proof("stripe", "", "sub_1", bytes(32), history, NOW)
    assert proof is not None
