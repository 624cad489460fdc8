"""Refuses what pages of other sites make a browser send: by another name of this service, or across sites.

A page can let its own name lead to this address, and then read what no key protects. So the name in `Host`
has to be one of this service's; webhooks prove themselves, and probes of health may know an address only.
"""

import re

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import CrossSite, Misdirected
from service.settings import Settings, is_loopback
from service.web.problems import daybook_error

_TAKES_ANY_HOST = ("/webhooks/", "/healthz", "/readyz")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+?)\.?(:\d*)?", re.IGNORECASE)


class BrowserGuard:
    """The app behind the checks of `Host` and `Sec-Fetch-Site`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on."""
        app = self._app
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (CrossSite, Misdirected) as error:
                app = await daybook_error(Request(scope), error)
        await app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise CrossSite or Misdirected for a request to refuse."""
        headers = Headers(scope=scope)
        is_navigation = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") == "cross-site" and not is_navigation:
            raise CrossSite("a page of another site asks; it may only lead here")
        if not scope["path"].startswith(_TAKES_ANY_HOST) and not self._is_served(headers.getlist("host")):
            raise Misdirected("no such host is served here; DAYBOOK_ALLOWED_HOSTS lists those that are")

    def _is_served(self, hosts: list[str]) -> bool:
        """Whether reads and pages may be asked for under the host that a request states."""
        allowed = self._settings.allowed_hosts
        if not allowed and self._settings.api_keys:
            return True
        matched = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if matched is None:
            return False
        name = matched[1].strip("[]").lower()
        return name in allowed if allowed else is_loopback(name)
