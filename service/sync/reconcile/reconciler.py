"""One reconciliation with a processor: everything that its API describes is listed, recorded and compared."""

from collections import Counter
from datetime import datetime

import structlog

from service.core.errors import Refused
from service.core.moments import rfc3339
from service.sync.reconcile.books import read_accounts
from service.sync.reconcile.contracts import ContractReconciler
from service.sync.reconcile.events import EventReconciler
from service.sync.reconcile.facts import COMPARISONS
from service.sync.reconcile.objects import ObjectReconciler
from service.sync.reconcile.payments import PaymentReconciler
from service.sync.reconcile.report import (
    Differences,
    ReconciliationReport,
    compare_facts,
    listed_differences,
    save_report,
)
from service.sync.reconcile.session import Session

_NO_ACCESS = frozenset({403, 404})  # answers for an account that does not exist, or gives no access any more

log = structlog.get_logger()


async def reconcile(session: Session, since: datetime | None) -> ReconciliationReport:
    """Append the events missed since a moment, where events are listed; compare; store the report.

    Raises Unavailable if the API or the books can't be read to the end; appended events stay, and the next
    run continues from there.
    """
    api, began = session.client.api, session.clock()
    differing: Differences = {}
    for account in await _read_accounts(session):
        differing |= await _reconcile_account(session, account, since)
    kinds = [each.name for each in (*api.objects, api.contracts, api.payments) if each]
    report = ReconciliationReport(
        processor=session.processor.name,
        began_at=rfc3339(began),
        finished_at=rfc3339(session.clock()),
        dry_run=session.dry_run,
        since=rfc3339(since) if since else None,
        listed=session.listed,
        missed=dict(session.missed),
        compared={kind: session.compared[kind] for kind in kinds},
        mended=dict(Counter(differences[0].kind for differences in session.mended.values())),
        differing=len(differing),
        differences=listed_differences(differing, session.mended),
    )
    await save_report(session.ledger, report, session.clock())
    return report


async def _read_accounts(session: Session) -> list[str]:
    """The account of the credentials; and the connected accounts that are in the books."""
    api, accounts = session.client.api, {session.client.own_account}
    for kind in api.objects if api.connects else ():
        comparison = COMPARISONS[kind.recorded_as]
        prefix = f"{comparison.history}|{session.processor.name}|"
        accounts |= set(await read_accounts(session.store, comparison.row, comparison.book, prefix))
    return sorted(accounts)


async def _reconcile_account(session: Session, account: str, since: datetime | None) -> Differences:
    """The differences in an account; the account itself is one if the API gives no access to it."""
    try:
        return await _compare_account(session, account, since)
    except Refused as refusal:
        if account == session.client.own_account or refusal.status not in _NO_ACCESS:
            raise
        log.warning("account_refused", processor=session.processor.name, account=account)
        return {account: compare_facts("account", account, account, None, {"status": "known"})}


async def _compare_account(session: Session, account: str, since: datetime | None) -> Differences:
    api = session.client.api
    events = EventReconciler(session, api.events, account) if api.events else None
    if events and since:
        await events.catch_up(since)
    differing: Differences = {}
    if api.objects:
        differing |= await ObjectReconciler(session, events, account).compare()
    if api.contracts:
        differing |= await ContractReconciler(session, api.contracts).compare()
    if api.payments:
        differing |= await PaymentReconciler(session, api.payments, account).compare()
    return differing
