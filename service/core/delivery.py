"""The proof that a handler gives of a delivery, and the description of a processor."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from service.core.events import Data, Event, ThinEvent
from service.core.processor_api import Api, Request

TOLERANCE_SECONDS = 300  # how far a signed timestamp may be from now, either way


class Proof(Struct, frozen=True, kw_only=True):
    """How one delivery was verified: the method, and the signed values other than the body.

    `trust` is "signed", "unsigned" or "fetched". `secret` is the number of the secret that matched,
    counted from 1, never the secret itself. `confirmable` says that a fetch from the processor will
    confirm the event. Of an object that was observed at the processor's API, `message_id` is the id under
    which it is recorded, and `account` that whose objects were asked for.
    """

    processor: str
    method: str
    received_at: datetime
    trust: str = "signed"
    message_id: str | None = None
    signed_at: datetime | None = None
    secret: int | None = None
    confirmable: bool = False
    account: str = ""

    @property
    def is_observation(self) -> bool:
        """Whether the body is an object as the processor's API shows it, and no event."""
        return self.method == "fetch" and self.message_id is not None


# verify(headers, body, secrets, now): proves who sent the bytes and when. Header names are lower
# case; a path parameter is a header whose name begins with a colon (":token"). Raises VerificationError.
Verify = Callable[[Mapping[str, str], bytes, Sequence[str], datetime], Proof]

# translate(payload, proof): the parsed body as ledger events; a pure function. Raises Unreadable.
Translate = Callable[[Any, Proof], list[Event]]

# ignore(payload, proof, mode): the event of a body that does not count where events of `mode` do ("live" or
# "test"), as an unused one; None for any other body. Raises Unreadable.
Ignore = Callable[[Any, Proof, str], Event | None]

# render(payload): the API version in which a body is rendered; "" if it names none.
Render = Callable[[Any], str]


# read_again(payload, proof, event_id, notification): the events of a body that was fetched to confirm
# `notification`, or only listed where that is None, and that brought `event_id`. Raises Unreadable.
ReadAgain = Callable[[Any, Proof, str, Event | None], list[Event]]


class Header(Struct, frozen=True, kw_only=True):
    """A header that proves a delivery. `others` are further names that it may have."""

    name: str
    description: str
    others: tuple[str, ...] = ()


class Endpoint(Struct, frozen=True, kw_only=True):
    """A path to which a processor posts, and how its deliveries there are proved.

    `secrets` is the name of the setting that holds the secrets for `verify`, `method` the name of that proof.
    The `headers` are kept with a delivery, so that its signature can be checked again; `unsigned` says why
    there is none to check.
    """

    path: str
    secrets: str
    method: str
    verify: Verify
    headers: tuple[Header, ...] = ()
    unsigned: str | None = None

    @property
    def header_names(self) -> list[str]:
        """The names of its headers, in lower case."""
        return [name.lower() for header in self.headers for name in (header.name, *header.others)]


class Confirmations(Struct, frozen=True, kw_only=True):
    """How unsigned notifications are confirmed by the API, and how the fetched bodies are read again.

    The id of a notification's event ends with `unsigned_suffix`, and that of the event that confirms it
    with `fetched_suffix`; otherwise they are the same. `confirmable` are the types of data that await it.
    `fetched` is the request for the object of such an event, None if there can be none; `confirm` takes the
    parsed answer, that event and the moment, and gives the event that confirms it, None while the object
    has not settled.
    """

    unsigned_suffix: str
    fetched_suffix: str
    confirmable: tuple[type[Data], ...]
    fetched: Callable[[Event], Request | None]
    confirm: Callable[[Any, Event, datetime], Event | None]
    read_again: ReadAgain

    def fetched_id(self, notification_id: str) -> str:
        """The id of the event that confirms a notification."""
        return notification_id.removesuffix(self.unsigned_suffix) + self.fetched_suffix

    def notification_id(self, event_id: str) -> str | None:
        """The id of the notification that an event may confirm, by the event's; None if it confirms none."""
        is_fetched = event_id.endswith(self.fetched_suffix)
        return event_id.removesuffix(self.fetched_suffix) + self.unsigned_suffix if is_fetched else None


# check(value, earlier): raises ValueError, with what a setting may hold, unless its value is one that may be.
# `earlier` are the settings declared before it.
SettingCheck = Callable[[Any, Mapping[str, Any]], None]


class ThinEvents(Struct, frozen=True, kw_only=True):
    """How what a thin event names is fetched.

    `is_thin` says of a parsed body whether it is a thin event. `event` is the request for the thin event of
    this id, which may name a snapshot though its delivery did not, and `snapshot_id` reads the answer; it
    raises Unreadable. `snapshot` is the request for the event of this id that tells the change, and `shown`
    that for the object; None if no object is named of which an observation tells enough.
    """

    is_thin: Callable[[Any], bool]
    event: Callable[[str, ThinEvent], Request]
    snapshot_id: Callable[[bytes], str | None]
    snapshot: Callable[[str, ThinEvent], Request]
    shown: Callable[[ThinEvent], Request | None]


class ExportFile(Struct, frozen=True, kw_only=True):
    """A file of what a processor shows or exports: bodies, or pages with a list of them under `list_name`.

    They are events, each the body of a delivery; with `are_observed` they are states and notifications, as
    observed at one moment. `with_account` gives an event the account in whose name it was listed, where it
    has none; it is set where events may belong to one.
    """

    list_name: str
    are_observed: bool = False
    with_account: Callable[[bytes, str], bytes] | None = None


class Processor(Struct, frozen=True, kw_only=True):
    """A processor: where it posts, and how its deliveries are read.

    `posts` says what its bodies are. `version` is that of the translation: it is raised whenever the same
    bytes are translated otherwise. `volatile` are the top-level fields of a body that may change in a
    redelivery; they are left out of the content digest, so that a retry is never a conflict. `render` is
    set where one event may come in several renderings; its ids are then unique over all accounts.
    `confirmations` is set where fetches confirm notifications.
    `thin_events` is set where events may only name what the API has; then `api` and `render` are set, too.
    `api` is set where its API can be asked. `mode_setting` is the name of the setting that says which mode
    counts, for `ignore`.
    `setting_checks` are its settings that are checked, by name, each with its check. `export_file` is set
    where its files can be imported.
    """

    name: str
    posts: str
    endpoints: tuple[Endpoint, ...]
    translate: Translate
    version: int
    volatile: tuple[str, ...] = ()
    ignore: Ignore | None = None
    render: Render | None = None
    confirmations: Confirmations | None = None
    thin_events: ThinEvents | None = None
    api: Api | None = None
    mode_setting: str | None = None
    setting_checks: tuple[tuple[str, SettingCheck], ...] = ()
    export_file: ExportFile | None = None

    @property
    def records_only_changes(self) -> bool:
        """Whether of what is fetched only what changed, or confirms a notification, is recorded."""
        return bool(self.confirmations or (self.api and self.api.contracts))

    def endpoint_by(self, method: str) -> Endpoint | None:
        """The endpoint whose deliveries are proved by this method."""
        return next((endpoint for endpoint in self.endpoints if endpoint.method == method), None)


# The mode, "live" or "test", whose events of a processor count; "" where it has no modes.
ModeOf = Callable[[Processor], str]


def no_mode(_processor: Processor) -> str:
    """The mode of processors that have none."""
    return ""


class Rendered(Struct, frozen=True, kw_only=True):
    """The rendering of an event in one body: its API version, and the digest of its content.

    `is_thin`: it only names what changed.
    """

    api_version: str
    content_digest: bytes
    is_thin: bool = False
