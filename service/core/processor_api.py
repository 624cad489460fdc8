"""The description of a processor's API: the requests that it takes, and how its answers are read. Pure.

A handler states requests and reads answers; only `service.sync` sends them. An account is "" or the id of
one of the processor's accounts. Functions that read an answer raise Unreadable.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from service.core.events import Data, Event

Query = Mapping[str, str | int]


class Request(Struct, frozen=True, kw_only=True):
    """One GET. `headers` are sent beside those of the credentials.

    `optional` are the parameters without which the answer is still useful: an API that does not know one of
    them is asked again without all of them.
    """

    path: str
    query: Query = {}
    optional: Mapping[str, Sequence[str]] = {}
    headers: Mapping[str, str] = {}


class Page(Struct, frozen=True, kw_only=True):
    """A page of a list: its objects, each as the bytes in the answer.

    `next_query` has the parameters in which the request of the next page differs from that of this one;
    None at the end. Whoever keeps it continues from there. `count` is how many objects the whole list has,
    where it says so.
    """

    objects: tuple[bytes, ...]
    next_query: Query | None
    count: int | None = None


class Repetition(Struct, frozen=True, kw_only=True):
    """How often a request is sent that fails for a while, and how long the waits between are.

    A wait is twice as long as the one before, or as long as `Retry-After` says, and never longer than the
    limit. `advice` is the header by which an answer says "true" or "false" to another attempt.
    """

    attempts: int
    first_wait_seconds: float
    max_wait_seconds: float
    advice: str | None = None


class ListedEvent(Struct, frozen=True, kw_only=True):
    """An event in a processor's list of events; `body` is what a webhook would have brought.

    `created` is in seconds since 1970. `is_pending`: its webhook has not been accepted yet. `kind` and
    `object_id` name the object in it, and `customer_id` whose it is; each is "" where it names none.
    """

    event_id: str
    type: str
    account: str
    created: int
    body: bytes
    is_used: bool
    is_pending: bool
    kind: str
    object_id: str
    customer_id: str


class EventLog(Struct, frozen=True, kw_only=True):
    """A list of all events, newest first. `days` is for how long the processor keeps them.

    `listed` takes an account, and the first and the last second since 1970; `read` an event's bytes and the
    account that was asked.
    """

    days: int
    listed: Callable[[str, int, int], Request]
    read: Callable[[bytes, str], ListedEvent]


class LiveObjects(Struct, frozen=True, kw_only=True):
    """A kind of object of which the live ones are listed, and each can be fetched by account and id.

    What is shown is translated as an observation, to one event. `recorded_as` is the type of its data.
    `is_live` says of a status in the books whether the list should have the object.
    """

    name: str
    recorded_as: type[Data]
    listed: Callable[[str], Request]
    fetched: Callable[[str, str], Request]
    is_live: Callable[[str], bool]


class ContractList(Struct, frozen=True, kw_only=True):
    """A list of all contracts, ended ones too. It is polled, and only changes are recorded.

    `figures` says which figures need it. `events` takes a record and the moment at which it was listed.
    `missing` gives the body by which a contract is recorded that the list no longer has, from what is known
    of it, the account and the number of contracts listed; None if that is known already. `unstated` are the
    compared facts that no record states.
    """

    name: str
    figures: str
    recorded_as: type[Data]
    listed: Callable[[str], Request]
    events: Callable[[Any, datetime], list[Event]]
    missing: Callable[[Any, str, int], Any | None]
    is_live: Callable[[str], bool]
    unstated: frozenset[str] = frozenset()


class PaymentList(Struct, frozen=True, kw_only=True):
    """A list of all payments and refunds.

    `event` takes a record, its account and the moment; it gives the event that would have told of it, None
    while none would. `event_ids` are the ids under which that event may be recorded with a trust, by
    account, id of the record and trust. `observed` is the body by which a record is recorded as observed,
    given the recorded event; `observed_id` makes the id of the observed object, as in a `HistoryList`.
    """

    name: str
    listed: Callable[[str], Request]
    event: Callable[[Any, str, datetime], Event | None]
    event_ids: Callable[[str, str, str], list[str]]
    observed: Callable[[Any, Event | None], Any]
    observed_id: Callable[[str, str], str]


class NestedList(Struct, frozen=True, kw_only=True):
    """A list in an object, of which the object may show a part only.

    `is_part` says so of an object's bytes; `listed` takes the account and the object's id; `fill` puts all
    that was listed into the object.
    """

    is_part: Callable[[bytes], bool]
    listed: Callable[[str, str], Request]
    fill: Callable[[bytes, Sequence[bytes]], bytes]


class HistoryList(Struct, frozen=True, kw_only=True):
    """A list of all objects of a kind, each of which is translated as an observation.

    `figures` says which figures need it. `listed` takes the account and the first second, since 1970, of
    which objects are wanted; None for all. `observed_id` makes the id of an observed object from the account
    and its own id. `recorded_ids` are the ids of events that may tell an object already, by account and id,
    and `complete` makes the body that is recorded from what is listed and the event that was found, where
    that says more.
    """

    name: str
    figures: str
    listed: Callable[[str, int | None], Request]
    nested: tuple[NestedList, ...] = ()
    observed_id: Callable[[str, str], str]
    recorded_ids: Callable[[str, str], list[str]] = lambda _account, _object_id: []
    complete: Callable[[bytes, Event], bytes] = lambda body, _event: body


class Api(Struct, frozen=True, kw_only=True):
    """A processor's API. `title` names it in messages.

    `settings` are the names of the settings without which it can't be asked, `url_setting` that of its
    address, which is `base_url` where it is unset. `headers` makes the headers of every request from the
    values of the settings, and `own_account` the account to which the credentials belong. `connects`: other
    accounts can be asked with them, too. `id_of` reads the id of an object or event, "" if it has none.
    `history` are the lists of everything that it holds beside `contracts`, in the order in which they are
    read; with `lists_by_creation` they can be asked for what was created since a moment.
    """

    title: str
    settings: tuple[str, ...]
    url_setting: str
    base_url: str = ""
    headers: Callable[[Mapping[str, str]], Mapping[str, str]]
    own_account: Callable[[Mapping[str, str]], str]
    connects: bool = False
    read_page: Callable[[bytes, Request], Page]
    id_of: Callable[[bytes], str]
    repetition: Repetition
    requests_per_second: int
    timeout_seconds: float
    events: EventLog | None = None
    objects: tuple[LiveObjects, ...] = ()
    contracts: ContractList | None = None
    payments: PaymentList | None = None
    history: tuple[HistoryList, ...] = ()
    lists_by_creation: bool = False
