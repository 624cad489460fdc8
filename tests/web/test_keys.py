"""Read keys: asked for where there is one, compared in constant time, and never for a webhook."""

import ast
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.reads.catalog import READS
from service.web import access
from tests.support.posted_books import path_of
from tests.support.running import Daybook, running
from tests.support.senders import STRIPE

KEYS = ("the-first-of-the-keys", "der-zweite-schlüssel")
LOCKED = [
    *(path_of(read, "cus_1") for read in READS),
    "/api/v1/ledger/head",
    "/api/v1/ledger/events",
    "/api/v1/ledger/events/1",
    "/api/v1/ledger/causes/stripe:evt_1",
    "/metrics",
]
OPEN = ["/healthz", "/readyz", "/openapi.json", "/schemas/event.json", "/docs", "/docs/assets/swagger-ui.css"]


@pytest.fixture
async def locked(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir, api_keys=",".join(KEYS)) as daybook:
        await daybook.post(STRIPE, STRIPE.event("1", 100))
        await daybook.catch_up()
        yield daybook


@pytest.mark.parametrize("path", LOCKED)
async def test_without_a_known_key_a_read_is_401(locked: Daybook, path: str) -> None:
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEYS[0]}"},
        {"Authorization": KEYS[0]},
        {"Authorization": f"Bearer {KEYS[0]}x"},
        {"Authorization": f"Bearer {','.join(KEYS)}".encode()},
        {"X-API-Key": ""},
        {"X-API-Key": KEYS[0].upper()},
        {"X-API-Key": "ÿÿ".encode("latin-1")},
    ):
        answer = await locked.http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not any(key in answer.text for key in KEYS)


@pytest.mark.parametrize("path", LOCKED)
async def test_with_a_key_in_either_header_it_is_answered(locked: Daybook, path: str) -> None:
    for headers in (
        {"Authorization": f"Bearer {KEYS[0]}"},
        {"Authorization": f"bearer {KEYS[0]}"},
        {"X-API-Key": KEYS[0]},
        {"X-API-Key": KEYS[0], "Authorization": "Basic of-a-proxy"},
    ):
        assert (await locked.http.get(path, headers=headers)).status_code == 200, headers


@pytest.mark.parametrize("path", LOCKED)
async def test_without_any_key_set_reads_are_open(daybook: Daybook, path: str) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.catch_up()

    assert (await daybook.http.get(path)).status_code == 200


@pytest.mark.parametrize("path", OPEN)
async def test_health_and_the_description_need_no_key(locked: Daybook, path: str) -> None:
    assert (await locked.http.get(path)).status_code == 200


async def test_a_webhook_needs_its_signature_and_no_key(locked: Daybook) -> None:
    answer = await locked.post(STRIPE, STRIPE.event("2", 100))

    assert answer.status_code == 200


def test_keys_are_compared_in_constant_time_every_one_of_them() -> None:
    tree = ast.parse(inspect.getsource(access.scopes_of))
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    called = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    (comparing,) = [node for node in ast.walk(tree) if isinstance(node, ast.ListComp)]

    assert "compare_digest" in called
    assert "compare_digest" in ast.unparse(comparing)  # a list, not a generator that stops at the first
    assert ast.unparse(comparing.generators[0].iter) == "keys"
    assert not any("key" in ast.unparse(node) for node in compared)
