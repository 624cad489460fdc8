"""Every error that Daybook raises on purpose.

DaybookError
├── SettingsError            a setting has an invalid value; stops the start
├── VerificationError        the sender or the time of sending is not proved    400
├── MalformedBody            verified, but not JSON; kept in quarantine         400
├── TooLarge                 a body over 1 MiB                                  413
├── TooSlow                  a body that does not arrive in time                408
├── Unreadable               verified and JSON, but of an unknown shape         200, quarantined
├── NotConfigured            no secret is set for this processor                503
├── Unavailable              the ledger can't commit, or the books can't be read 503
│   ├── Busy                 the limit of concurrent requests is reached        503
│   └── Refused              a processor's API refuses a request, or has no such object
├── ParameterError           a query parameter that can't be used               400
├── Unauthorized             a read without a known key                         401
├── Forbidden                the key lacks a scope that the request needs       403
├── CrossSite                a page of another site makes a browser ask         403
├── Misdirected              a read under a host that is not served             421
├── NotFound                 the thing asked for does not exist                 404
│   └── Erased               it existed until its customer was erased           410
├── Behind                   the books did not reach the position asked for     504
└── Integrity                the ledger or a book is damaged or inconsistent
    └── LostEvents           the ledger lacks events that were acknowledged     503
"""

from collections.abc import Sequence

from service.core.events import Event


class DaybookError(Exception):
    """The root. Its text may be shown to anyone: it contains no secret and no payload."""


class SettingsError(DaybookError):
    """A setting has an invalid value."""


class VerificationError(DaybookError):
    """A delivery's signature, token or timestamp does not prove who sent it, or when."""


class MalformedBody(DaybookError):
    """A verified delivery whose body is not JSON."""


class TooLarge(DaybookError):
    """A delivery whose body is longer than any body that a processor posts."""


class TooSlow(DaybookError):
    """A delivery whose body did not arrive in the time allowed."""


class Unreadable(DaybookError):
    """A verified JSON delivery whose shape no translator can read.

    `events` are those of the readable records, where the body is a list of records.
    """

    def __init__(self, detail: str, events: Sequence[Event] = ()) -> None:
        super().__init__(detail)
        self.events = events


class NotConfigured(DaybookError):
    """A delivery for a processor (or biller) that has no secret set."""


class Unavailable(DaybookError):
    """The ledger or the books can't be used now; the caller should try again."""


class Busy(Unavailable):
    """The limit of concurrent requests, or of the bytes of their bodies, is reached now."""


class Refused(Unavailable):
    """A processor's API refuses a request, and would refuse it again. `status` is that of its answer."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.status = status


class ParameterError(DaybookError):
    """A query parameter is missing, malformed or out of range."""


class Unauthorized(DaybookError):
    """A read without a key, or with an unknown one."""


class Forbidden(DaybookError):
    """A request whose key lacks a scope that it needs."""


class CrossSite(DaybookError):
    """A request that a page of another site made a browser send, and that is no visit."""


class Misdirected(DaybookError):
    """A read or a page that is asked for under a host that this service does not serve."""


class NotFound(DaybookError):
    """The thing asked for does not exist."""


class Erased(NotFound):
    """The thing asked for can't be read any more: it was erased with its customer."""


class Behind(DaybookError):
    """The books did not reach the position asked for in the time allowed."""


class Integrity(DaybookError):
    """The ledger's chain is broken, or a book differs from its replay."""


class LostEvents(Integrity):
    """The ledger lacks events that it had acknowledged; it records nothing until an operator accepts that."""
