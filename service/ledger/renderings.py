"""Renderings: one event that several deliveries tell, each in the API version of its endpoint.

Stripe renders an event for each endpoint, and once more where it is fetched. Every rendering is kept, and the
books read one of them, which is chosen by content, never by the order of arrival: whole before thin, signed
before fetched, then the newest API version, then the digest. The event belongs to the account that any
rendering names. Where that gives another event than before, a revision takes its place, as after a
retranslation.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, bindparam, or_, select

from service.core.delivery import Rendered
from service.core.events import (
    REVISION_MARK,
    Event,
    Rendering,
    Superseded,
    revision_id,
    revision_number,
    superseding_event,
)
from service.ledger import tables
from service.ledger.history import EVENT_COLUMNS, to_event, unseal_rows
from service.ledger.vault import StoredBody, Vault
from service.storage.statements import HotStatement, any_of

Render = Callable[[bytes], Rendered | None]
Rank = tuple[bool, int, str, bytes]

NO_RANK: Rank = (False, -1, "", b"")  # of a rendering that can't be compared

_TRUST_RANK = {"unsigned": 0, "fetched": 1, "signed": 2}
_AFTER_MARK = chr(ord(REVISION_MARK) + 1)  # ids that begin with "evt_1·" sort before "evt_1" and this

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_SELECT_ALL_OF_ONE = HotStatement(
    lambda _: (
        select(*EVENT_COLUMNS, _events.c.delivery, _events.c.content_digest)
        .select_from(_ids.join(_events, _events.c.position == _ids.c.position))
        .where(
            _ids.c.processor == bindparam("processor"),
            or_(
                _ids.c.event_id == bindparam("event_id"),
                and_(_ids.c.event_id >= bindparam("first"), _ids.c.event_id < bindparam("last")),
            ),
        )
        .order_by(_events.c.position)
    )
)
_SELECT_DELIVERIES = HotStatement(
    lambda _: select(
        _deliveries.c.position, _deliveries.c.headers, _deliveries.c.body, _deliveries.c.proof
    ).where(any_of(_deliveries.c.position, "positions"))
)


class Raw(Struct, frozen=True, kw_only=True):
    """A delivery's headers, its body in the clear, and its proof as JSON."""

    headers: bytes
    body: bytes
    proof: bytes


class KnownRendering(Struct, frozen=True, kw_only=True):
    """One rendering of an event: the account that it names, its trust, and its rendering.

    `digests` are those under which its content may be recorded. `rendered` is None where its bytes were
    erased or moved away.
    """

    account: str
    trust: str
    position: int
    digests: frozenset[bytes]
    rendered: Rendered | None

    @property
    def rank(self) -> Rank:
        """The place of this rendering: the books read the one with the highest."""
        return rank(self.trust, self.rendered) if self.rendered else NO_RANK


class EventRenderings(Struct, kw_only=True):
    """An event with all its renderings in the ledger.

    `effective` are its revisions that count: one, or several where an older version of Daybook recorded an
    event once for each account. `source` is the delivery from which it was read, None if that was erased.
    `revisions` is the number of the last revision.
    """

    all: list[KnownRendering]
    effective: list[Event]
    source: Raw | None
    revisions: int = 1

    def knows(self, rendering: KnownRendering) -> bool:
        """Whether a rendering adds nothing: this content came in this account with at least this trust."""
        return any(
            known.account == rendering.account
            and known.digests & rendering.digests
            and _TRUST_RANK.get(known.trust, 0) >= _TRUST_RANK.get(rendering.trust, 0)
            for known in self.all
        )

    @property
    def is_whole(self) -> bool:
        """Whether the bytes of all renderings are there, so that another one can be compared with them."""
        return self.source is not None and all(rendering.rendered for rendering in self.all)

    def contradicted(self, rendering: KnownRendering) -> KnownRendering | None:
        """The rendering that has the same API version and other content; fetched ones contradict none."""
        return next(
            (
                known
                for known in self.all
                if "fetched" not in (known.trust, rendering.trust)
                and known.rendered
                and rendering.rendered
                and known.rendered.api_version == rendering.rendered.api_version
                and not known.digests & rendering.digests
            ),
            None,
        )

    def add(self, rendering: KnownRendering, event: Event, raw: Raw) -> list[Event]:
        """Take another rendering in, whose own event and bytes these are; the events that it makes necessary.

        They are to be appended as read from `source`, which is `raw` from then on if this one is chosen.
        """
        best = max(self.all, key=lambda known: known.rank)
        self.all.append(rendering)
        accounts = [known.account for known in self.all] + [event.account for event in self.effective]
        account = named_account(accounts)
        says_the_same = rendering.trust == best.trust and rendering.digests & best.digests
        is_right = [effective.account for effective in self.effective] == [account]
        if not self.effective or (is_right and rendering.rank <= best.rank):
            return []
        chosen = self.effective[0]
        if rendering.rank > best.rank or (says_the_same and rendering.account == account):
            chosen, self.source = event, raw
        self.revisions += 1
        revised = replace(chosen, account=account, event_id=revision_id(event.event_id, self.revisions))
        markers = [superseding_event(old, revised.event_id) for old in self.effective]
        self.effective = [revised]
        return [*markers, revised]


def rank(trust: str, rendered: Rendered) -> Rank:
    """The place of a rendering: of several renderings the books read the one with the highest."""
    return (
        not rendered.is_thin,
        _TRUST_RANK.get(trust, 0),
        rendered.api_version,
        rendered.content_digest,
    )


def named_account(accounts: Iterable[str]) -> str:
    """The account of an event that several renderings name: the smallest; empty if none is named."""
    return min(filter(None, accounts), default="")


def rendering_event(event: Event, rendering: KnownRendering, digest: Callable[[bytes], bytes]) -> Event:
    """The event that keeps another rendering. Its id is made from all in which renderings differ.

    So a retry of this rendering is known by it.
    """
    assert rendering.rendered  # noqa: S101 - it has just come
    content = b"|".join(
        (rendering.rendered.content_digest, rendering.account.encode(), rendering.trust.encode())
    )
    return replace(
        event,
        account="",
        event_id=f"{event.event_id}{REVISION_MARK}{digest(content).hex()[:32]}",
        data=Rendering(
            event_id=event.event_id,
            account=rendering.account,
            api_version=rendering.rendered.api_version,
            customer_id=getattr(event.data, "customer_id", None),
        ),
        before=None,
    )


def read_renderings(
    connection: Connection, vault: Vault, processor: str, event_id: str, render: Render
) -> EventRenderings:
    """An event of the ledger with all its renderings."""
    rows = _read_rows(connection, vault, processor, event_id)
    superseded = {(e.account, e.data.event_id) for _, e, *_ in rows if isinstance(e.data, Superseded)}
    renderings = [row for row in rows if _is_rendering(row, event_id)]
    effective = [
        row
        for row in rows
        if not isinstance(row.event.data, Superseded | Rendering)
        and (row.event.account, row.event.event_id) not in superseded
    ]
    raw = _read_raw(connection, vault, {row.delivery for row in (*renderings, *effective)})
    return EventRenderings(
        all=[_known_rendering(row, raw.get(row.delivery), render, vault) for row in renderings],
        effective=[row.event for row in effective],
        source=raw.get(effective[0].delivery) if effective else None,
        revisions=max((revision_number(row.event.event_id) for row in effective), default=1),
    )


def read_deliveries_of(
    connection: Connection, vault: Vault, processor: str, event_id: str
) -> dict[int, Raw | None]:
    """The deliveries that brought an event, by position; None where the bytes were erased or moved away."""
    rows = _read_rows(connection, vault, processor, event_id)
    positions = {row.delivery for row in rows if _is_rendering(row, event_id)}
    raw = _read_raw(connection, vault, positions)
    return {position: raw.get(position) for position in sorted(positions)}


class _Row(NamedTuple):
    position: int
    event: Event
    delivery: int
    content_digest: bytes


def _read_rows(connection: Connection, vault: Vault, processor: str, event_id: str) -> list[_Row]:
    """An event, its revisions, their markers and its renderings."""
    ids = event_id, event_id + REVISION_MARK, event_id + _AFTER_MARK
    rows = unseal_rows(connection, vault, _SELECT_ALL_OF_ONE.run(connection, processor, *ids))
    return [_Row(row[0], to_event(row), *row[-2:]) for row in rows]


def _is_rendering(row: _Row, event_id: str) -> bool:
    return row.event.event_id == event_id or isinstance(row.event.data, Rendering)


def _known_rendering(row: _Row, raw: Raw | None, render: Render, vault: Vault) -> KnownRendering:
    rendered = render(raw.body) if raw else None
    # An older version recorded other digests: of more of the body, or without a key.
    digests = {row.content_digest, *([vault.digest(rendered.content_digest)] if rendered else [])}
    return KnownRendering(
        account=row.event.data.account if isinstance(row.event.data, Rendering) else row.event.account,
        trust=row.event.trust,
        position=row.position,
        digests=frozenset(digests),
        rendered=rendered,
    )


def _read_raw(connection: Connection, vault: Vault, positions: set[int]) -> dict[int, Raw]:
    """The deliveries at these positions whose bytes are still there."""
    rows: list[Any] = _SELECT_DELIVERIES.run(connection, sorted(positions))
    bodies = vault.unseal_bodies(connection, [StoredBody(*row[1:4]) for row in rows])
    return {
        row[0]: Raw(headers=row[1], body=body, proof=row[3])
        for row, body in zip(rows, bodies, strict=True)
        if body
    }
