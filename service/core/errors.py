"""Every error that Daybook raises on purpose.

DaybookError
├── SettingsError            a setting holds what it may not hold; stops the start
├── VerificationError        who sent this, or when, can't be proved            400
├── MalformedBody            proved, but not JSON; kept in quarantine           400
├── TooLarge                 a body over 1 MiB                                  413
├── TooSlow                  a body that does not arrive in time                408
├── Unreadable               proved and JSON, but of no shape that we know      200, quarantined
├── NotConfigured            no secret is set for this processor                503
├── Unavailable              the ledger can't commit, or the books can't be read 503
│   └── Busy                 as many requests are under way as may be           503
├── ParameterError           a query parameter that can't be used               400
├── Unauthorized             a read without a key that is known                 401
├── NotFound                 there is no such thing                             404
│   └── Erased               it was there, until its customer was erased        410
├── Behind                   the books did not reach the position asked for     504
└── Integrity                the ledger or a book is not what it should be
"""

from collections.abc import Sequence

from service.core.events import Event


class DaybookError(Exception):
    """The root. Its text is fit to be shown: it holds no secret and no payload."""


class SettingsError(DaybookError):
    """A setting holds a value that it may not hold."""


class VerificationError(DaybookError):
    """A delivery's signature, token or timestamp does not prove what it should."""


class MalformedBody(DaybookError):
    """A verified delivery whose body is not JSON."""


class TooLarge(DaybookError):
    """A delivery whose body is longer than any that a processor posts."""


class TooSlow(DaybookError):
    """A delivery whose body did not arrive in the time allowed."""


class Unreadable(DaybookError):
    """A verified JSON delivery whose shape no translator can read.

    Of a list of records some may be readable: `events` are theirs.
    """

    def __init__(self, detail: str, events: Sequence[Event] = ()) -> None:
        super().__init__(detail)
        self.events = events


class NotConfigured(DaybookError):
    """A delivery for a processor (or biller) that has no secret set."""


class Unavailable(DaybookError):
    """A store can't do its work now; the caller should try again."""


class Busy(Unavailable):
    """There is no room for one more request, or for more of its body, just now."""


class ParameterError(DaybookError):
    """A query parameter is missing, malformed or out of range."""


class Unauthorized(DaybookError):
    """A read without a key, or with one that is not known."""


class NotFound(DaybookError):
    """What was asked for does not exist."""


class Erased(NotFound):
    """What was asked for can't be read any more: it was erased with its customer."""


class Behind(DaybookError):
    """The books did not reach the position asked for in the time allowed."""


class Integrity(DaybookError):
    """The ledger's chain is broken, or a book differs from its replay."""
