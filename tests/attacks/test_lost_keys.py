"""Whoever can write the database takes keys away: nothing that can't be read again is acknowledged."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from service.bootstrap import prepare
from service.core.errors import Integrity
from service.ledger import tables
from service.ledger.vault import GENERAL
from service.settings import Settings
from service.verify import Fault, verify_chain
from tests.support.cli import Run
from tests.support.running import Daybook
from tests.support.senders import STANDARD
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

_keys = tables.Key.__table__  # type: ignore[attr-defined]


def of(owner: str) -> Any:
    return _keys.c.owner == owner


def customer(number: int) -> dict[str, Any]:
    person = {"customer_id": "cus_ada", "name": f"Ada {number}"}
    return {"type": "customer.recorded", "occurred_at": f"2025-01-0{number}T00:00:00Z", "data": person}


async def write(daybook: Daybook, change: Any) -> None:
    await daybook.state.ledger._database.write(lambda connection: connection.execute(change))


async def fault(daybook: Daybook) -> tuple[str, str | None]:
    with pytest.raises(Fault) as found:
        await verify_chain(daybook.state.ledger)
    return found.value.where.table, found.value.where.key


@pytest.mark.parametrize(
    "change",
    [
        update(_keys).where(of(GENERAL)).values(sealed=None),
        delete(_keys).where(of(GENERAL)),
        delete(_keys),
    ],
    ids=["destroyed", "deleted", "all deleted"],
)
async def test_without_the_general_key_nothing_is_taken_and_no_start_goes_on(
    daybook: Daybook, settings: Settings, command: Run, change: Any
) -> None:
    await daybook.post(STANDARD, {**customer(1), "type": "of.no.use"})
    await write(daybook, change)

    refused = await daybook.post(STANDARD, {**customer(2), "type": "of.no.use"})

    assert (refused.status_code, await daybook.head()) == (503, 1)
    assert (await daybook.post(STANDARD, b"no JSON")).status_code == 503
    assert (await fault(daybook))[0] == "keys"
    with pytest.raises(Integrity, match="the key of general is gone"):
        prepare(settings)
    verified = await command("verify")
    assert (verified.exit_code, " key of " in verified.stdout) == (1, True)


async def test_a_customer_whose_key_is_gone_was_erased_or_is_not_taken(daybook: Daybook) -> None:
    await daybook.post(STANDARD, customer(1))
    await write(daybook, update(_keys).where(of("customer|standard.acme||cus_ada")).values(sealed=None))

    refused = await daybook.post(STANDARD, customer(2))

    assert (refused.status_code, await daybook.head()) == (503, 1)
    assert await fault(daybook) == ("keys", "customer|standard.acme||cus_ada")


async def test_a_payment_whose_key_is_gone_names_an_erased_customer_or_is_not_taken(
    daybook: Daybook, command: Run
) -> None:
    def dispute(number: int, **data: Any) -> dict[str, Any]:
        told = {
            "dispute_id": "dp_1",
            "payment_id": "pi_1",
            "amount": 100,
            "currency": "usd",
            "status": "open",
        }
        when = f"2025-02-0{number}T00:00:00Z"
        return {"type": "dispute.recorded", "occurred_at": when, "data": {**told, **data}}

    paid = {"payment_id": "pi_1", "amount": 100, "currency": "usd", "status": "succeeded"}
    await daybook.post(STANDARD, dispute(1))
    gone = update(_keys).where(of("payment|standard.acme||pi_1")).values(sealed=None)
    await write(daybook, gone)
    assert (await daybook.post(STANDARD, dispute(2))).status_code == 503
    assert await fault(daybook) == ("keys", "payment|standard.acme||pi_1")

    payment = {"type": "payment.recorded", "occurred_at": "2025-01-02T00:00:00Z"}
    named = {**payment, "data": {**paid, "customer_id": "cus_ada"}}
    assert (await daybook.post(STANDARD, named)).status_code == 200
    await daybook.catch_up()
    assert (await command("erase", "cus_ada", "--yes")).exit_code == 0

    assert (await daybook.post(STANDARD, dispute(3))).status_code == 200
    assert (await daybook.post(STANDARD, customer(3))).status_code == 200
    await verify_chain(daybook.state.ledger)
