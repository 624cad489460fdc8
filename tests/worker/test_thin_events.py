"""Real processes fetch what thin events name: soon after the webhook, and after any crash."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from msgspec import json

from tests.support.processes import NO_TLS, DaybookProcesses
from tests.support.senders import STRIPE
from tests.support.stripe_api import KEY, StripeApi, serve, subscription, thin_event
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def api() -> Iterator[StripeApi]:
    with serve(StripeApi()) as api:
        yield api


@pytest.fixture
def daybook(tmp_path: Path, valkey: ValkeyServer, api: StripeApi) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path, valkey.connection_url) as daybook:
        daybook.environment |= {
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": STRIPE.secret,
            "DAYBOOK_STRIPE_API_KEY": KEY,
            "DAYBOOK_STRIPE_API_URL": api.url,
        }
        yield daybook


def start(daybook: DaybookProcesses, *names: str) -> None:
    for name in names:
        daybook.start(name)
    daybook.wait_ready()


def post_thin(daybook: DaybookProcesses, api: StripeApi, number: int) -> dict[str, object]:
    """A contract of 147 dollars a month begins; what Daybook answers to its thin event."""
    now = datetime.now(UTC)
    snapshot = api.shop.happens(
        "customer.subscription.created", subscription(number), int(now.timestamp()) - 60
    )
    body = json.encode(thin_event(number, snapshot))
    answer = httpx.post(
        f"{daybook.url}/webhooks/stripe",
        content=body,
        headers=STRIPE.sign(body, now, "", STRIPE.secret),
        timeout=PATIENCE_SECONDS,
        verify=NO_TLS,
    )
    assert answer.status_code == 200, answer.text
    answered: dict[str, object] = answer.json()
    return answered


def wait_for_contracts(daybook: DaybookProcesses, count: int) -> None:
    def counted() -> bool:
        answer = httpx.get(f"{daybook.url}/api/v1/mrr", timeout=PATIENCE_SECONDS, verify=NO_TLS)
        return answer.status_code == 200 and answer.json()["active_contracts"] == count

    wait_until(counted, f"{count} contracts are in the books")


def test_what_thin_events_name_is_in_the_books_soon(daybook: DaybookProcesses, api: StripeApi) -> None:
    start(daybook, "web", "worker")

    answers = [post_thin(daybook, api, number) for number in range(1, 6)]

    assert {answer["pending"] for answer in answers} == {"fetch"}
    wait_for_contracts(daybook, 5)
    fetched = [path for path, _ in api.asked if path.startswith("/v1/events/")]
    assert sorted(fetched) == [f"/v1/events/evt_{number}" for number in range(1, 6)]


def test_processes_killed_between_the_answer_and_the_fetch_lose_nothing(
    daybook: DaybookProcesses, api: StripeApi, valkey: ValkeyServer
) -> None:
    # given a web process that dies after its answer, and a Redis that loses what it was told
    start(daybook, "web")
    assert post_thin(daybook, api, 1)["pending"] == "fetch"
    daybook.kill("web")
    with valkey.client() as client:
        client.flushall()

    start(daybook, "web", "worker")

    wait_for_contracts(daybook, 1)


def test_an_api_key_that_is_set_later_has_what_waited_fetched(
    daybook: DaybookProcesses, api: StripeApi
) -> None:
    key = daybook.environment.pop("DAYBOOK_STRIPE_API_KEY")
    start(daybook, "web", "worker")
    assert post_thin(daybook, api, 1)["quarantined"] is True
    for name in ("worker", "web"):
        daybook.kill(name)
    daybook.environment["DAYBOOK_STRIPE_API_KEY"] = key

    start(daybook, "web", "worker")

    wait_for_contracts(daybook, 1)
    assert api.asked
