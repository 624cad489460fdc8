"""Stripe's API: lists over all pages and single objects, as the bytes of Stripe's answers."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from stripe import APIConnectionError, HTTPXClient, StripeClient, StripeError

from service.core.errors import NotFound, Unavailable

VERSION = "2025-08-27.basil"  # the API version whose objects `handlers.stripe` reads, not the library's own
PAGE_SIZE = 100
MAX_ATTEMPTS = 8
_FIRST_WAIT_SECONDS = 0.5
_MAX_WAIT_SECONDS = 60.0
_TRANSIENT_STATUSES = frozenset({409, 429})

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]


class _Page(Struct):
    """A page of a list. An answer without `has_more` is refused as no list."""

    data: list[msgspec.Raw]
    has_more: bool


class _Object(Struct):
    id: str


class StripeApiClient:
    """Stripe's API with one key. `close` closes its HTTP client.

    Requests are repeated here, since the library neither repeats after 429 nor waits for `Retry-After`.
    `random_fraction` gives a number from 0 to 1, so that many clients do not repeat at the same moment.
    """

    def __init__(
        self,
        api_key: str,
        api_url: str | None = None,
        *,
        pause: Pause = asyncio.sleep,
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._http = HTTPXClient(timeout=30)
        self._client = StripeClient(
            api_key,
            stripe_version=VERSION,
            base_addresses={"api": api_url} if api_url else None,
            max_network_retries=0,
            http_client=self._http,
        )
        self._pause = pause
        self._random_fraction = random_fraction

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def list_pages(self, path: str, account: str = "", **query: Any) -> AsyncIterator[list[bytes]]:
        """A list's objects, a page at a time until the last page.

        `account` is a connected account; empty for the key's own. Raises Unavailable if a page can't be
        fetched, NotFound if there is no such list or account for this key.
        """
        after: str | None = None
        while True:
            cursor = {"starting_after": after} if after else {}
            page = _decode(await self._get(path, account, limit=PAGE_SIZE, **query, **cursor), _Page)
            objects = [bytes(item) for item in page.data]
            if objects:
                yield objects
            if not page.has_more:
                return
            last = _decode(objects[-1], _Object).id if objects else after
            if last == after:
                raise Unavailable(f"Stripe's list {path} goes on, and gives nothing more")
            after = last

    async def fetch_one(self, path: str, account: str = "") -> bytes | None:
        """One object, or None if there is none. Raises Unavailable if Stripe can't be asked now."""
        try:
            return await self._get(path, account)
        except NotFound:
            return None

    async def _get(self, path: str, account: str, **query: Any) -> bytes:
        """GET, repeated after transient errors, `MAX_ATTEMPTS` times at most."""
        answer = "nothing"
        for attempt in range(MAX_ATTEMPTS):
            try:
                response = await self._client.raw_request_async(
                    "get", path, stripe_account=account or None, **query
                )
                return bytes(response.body, "utf-8")
            except StripeError as error:
                answer = _describe_answer(error)
                if not _is_transient(error):
                    raise _refusal(error, path, account) from None
                wait = max(self._backoff(attempt), _retry_after(error))
            if attempt < MAX_ATTEMPTS - 1:
                await self._pause(min(wait, _MAX_WAIT_SECONDS))
        raise Unavailable(f"Stripe answered {answer}, {MAX_ATTEMPTS} times")

    def _backoff(self, attempt: int) -> float:
        return float(_FIRST_WAIT_SECONDS * 2**attempt * (1 + self._random_fraction()) / 2)


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unavailable("Stripe's answer is of no shape that is known") from None


def _describe_answer(error: StripeError) -> str:
    return str(error.http_status or type(error.__cause__ or error).__name__)


def _is_transient(error: StripeError) -> bool:
    """Whether to repeat a request. `stripe-should-retry` decides, but a 429 is always repeated."""
    if isinstance(error, APIConnectionError):
        return True
    status, advice = error.http_status or 0, (error.headers or {}).get("stripe-should-retry")
    if status != 429 and advice in {"true", "false"}:
        return advice == "true"
    return status in _TRANSIENT_STATUSES or status >= 500


def _retry_after(error: StripeError) -> float:
    header = (error.headers or {}).get("retry-after", "")
    return float(header) if re.fullmatch("[0-9]{1,9}", header) else 0.0


def _refusal(error: StripeError, path: str, account: str) -> NotFound | Unavailable:
    """The error to raise. Stripe's own text is left out, since it may repeat a part of the key."""
    detail = f"Stripe answered {_describe_answer(error)} to {path}" + (f" of {account}" if account else "")
    is_missing = error.http_status == 404 or (error.http_status == 403 and account)
    return NotFound(detail) if is_missing else Unavailable(detail)
