"""The client of every processor's API: single objects and lists over all pages, as the answers' bytes."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import httpx
import structlog
from msgspec.structs import replace
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from service.core.delivery import Processor
from service.core.errors import NotConfigured, Refused, SettingsError, Unavailable, Unreadable
from service.core.processor_api import Api, Page, Request
from service.settings import Settings

MAX_PAGES = 1_000_000  # of one list: one that goes on for ever is no list
_CONNECT_SECONDS = 5.0
_LONG_WAIT_SECONDS = 5.0  # of which the log tells
_TRANSIENT_STATUSES = frozenset({409, 429})
_NEVER_FINAL_STATUSES = frozenset({429})  # whatever the answer advises

log = structlog.get_logger()

Pause = Callable[[float], Awaitable[None]]


class ApiClient:
    """An API asked with the credentials in `values`, by names of settings. `close` closes its HTTP client.

    No error and no log line holds a credential, or a text of the answer, which may repeat one.
    `random_fraction` gives a number from 0 to 1, so that many clients do not repeat at the same moment;
    `monotonic` is a clock in seconds.
    """

    def __init__(
        self,
        api: Api,
        values: Mapping[str, str],
        *,
        pause: Pause = asyncio.sleep,
        random_fraction: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.own_account = api.own_account(values)
        headers = api.headers(values)
        if not all(value.isprintable() and value == value.strip() for value in headers.values()):
            raise SettingsError(f"a setting for {api.title}'s API has a character that no header can have")
        try:
            self._http = httpx.AsyncClient(
                base_url=values[api.url_setting] or api.base_url,
                headers=[(name.encode(), value.encode()) for name, value in headers.items()],
                timeout=httpx.Timeout(api.timeout_seconds, connect=_CONNECT_SECONDS),
            )
        except httpx.InvalidURL:
            raise SettingsError(f"DAYBOOK_{api.url_setting.upper()} holds no URL") from None
        self._pause = pause
        self._random_fraction = random_fraction
        self._monotonic = monotonic
        self._next_turn = 0.0

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._http.aclose()

    async def pages(self, request: Request, *, max_pages: int = MAX_PAGES) -> AsyncIterator[Page]:
        """The pages of a list, from the one that the request asks for to the last one.

        Where it is refused with 400, it is asked for without its optional parameters from there on.
        Raises Refused, and Unavailable if the list can't be had to its end.
        """
        for _ in range(max_pages):
            try:
                body = await self.fetch(request)
            except Refused as refusal:
                if refusal.status != httpx.codes.BAD_REQUEST or not request.optional:
                    raise
                request = replace(request, optional={})
                body = await self.fetch(request)
            try:
                page = self.api.read_page(body, request)
            except Unreadable as error:
                raise Unavailable(
                    f"{self.api.title}'s answer to {request.path} can't be read: {error}"
                ) from None
            yield page
            if page.next_query is None:
                return
            following = replace(request, query={**request.query, **page.next_query})
            if following == request:
                raise Unavailable(f"{self.api.title}'s list {request.path} goes on, and gives nothing more")
            request = following
        raise Unavailable(f"{self.api.title}'s list {request.path} has more than {max_pages} pages")

    async def fetch_one(self, request: Request) -> bytes | None:
        """The answer's bytes, or None if there is no such object. Raises as `fetch` does."""
        try:
            return await self.fetch(request)
        except Refused as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def fetch(self, request: Request) -> bytes:
        """The answer's bytes. Raises Refused if it is no answer, Unavailable if there is none for now."""
        repetition = self.api.repetition
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(repetition.attempts),
            wait=self._wait_seconds,
            sleep=self._pause,
            before_sleep=self._log_wait,
            reraise=True,
        )
        try:
            return await attempts(self._send, request)
        except _Transient as last:
            raise Unavailable(f"{self.api.title} answered {last}, {repetition.attempts} times") from None

    async def _send(self, request: Request) -> bytes:
        await self._take_turn()
        try:
            response = await self._http.get(
                request.path, params={**request.query, **request.optional}, headers=dict(request.headers)
            )
        except httpx.RequestError as error:
            raise _Transient(type(error).__name__) from None
        if self._is_transient(response):
            raise _Transient(str(response.status_code), _retry_after(response))
        if response.status_code != httpx.codes.OK:
            raise Refused(
                f"{self.api.title} answered {response.status_code} to {request.path}", response.status_code
            )
        return response.content

    async def _take_turn(self) -> None:
        """Wait until the API's rate allows another request."""
        now = self._monotonic()
        turn = max(now, self._next_turn)
        self._next_turn = turn + 1 / self.api.requests_per_second
        if turn > now:
            await self._pause(turn - now)

    def _is_transient(self, response: httpx.Response) -> bool:
        """Whether the same request may be answered later."""
        if response.status_code in _NEVER_FINAL_STATUSES:
            return True
        advice = response.headers.get(self.api.repetition.advice or "")
        if advice in {"true", "false"} and response.is_error:
            return bool(advice == "true")
        return response.status_code in _TRANSIENT_STATUSES or response.is_server_error

    def _wait_seconds(self, state: RetryCallState) -> float:
        """The wait after an attempt: longer with each, partly random, at least what the answer asked for."""
        repetition = self.api.repetition
        longest = repetition.first_wait_seconds * 2.0 ** (state.attempt_number - 1)
        backoff = longest * (1 + self._random_fraction()) / 2
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, _Transient) else 0.0
        return float(min(max(backoff, asked), repetition.max_wait_seconds))

    def _log_wait(self, state: RetryCallState) -> None:
        """Tell of a long wait: whoever waits for a command wants to know for what."""
        if state.upcoming_sleep >= _LONG_WAIT_SECONDS and state.outcome:
            answer, seconds = str(state.outcome.exception()), round(state.upcoming_sleep, 1)
            log.warning("api_awaited", api=self.api.title, answer=answer, seconds=seconds)


class _Transient(Exception):
    """An attempt failed, and another may not. Its text says what was answered."""

    def __init__(self, answer: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(answer)
        self.retry_after_seconds = retry_after_seconds


def open_client(settings: Settings, processor: Processor) -> ApiClient:
    """A client with the credentials of the settings. Raises NotConfigured if one of them is unset."""
    api = processor.api
    if api is None:
        raise NotConfigured(f"Daybook knows no API of {processor.name}")
    if unset := settings.unset_of(api):
        raise NotConfigured(f"{', '.join(unset)} {'is' if len(unset) == 1 else 'are'} unset")
    return ApiClient(api, settings.values_of(api))


def _retry_after(response: httpx.Response) -> float:
    """The seconds of `Retry-After`; 0 if it is missing, or a date."""
    header = response.headers.get("Retry-After", "")
    return float(header) if re.fullmatch("[0-9]{1,9}", header) else 0.0
