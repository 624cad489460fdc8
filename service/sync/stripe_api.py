"""Stripe's API: lists paged to the end and single objects, as the bytes that it answered."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from stripe import APIConnectionError, HTTPXClient, StripeClient, StripeError

from service.core.errors import NotFound, Unavailable

VERSION = "2025-08-27.basil"  # of the objects' shape: one that is read, whatever the library's own is
PAGE = 100
TRIES = 8
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_PASSING = frozenset({409, 429})

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]


class _Page(Struct):
    """A page of a list. A list that does not say whether it goes on is none."""

    data: list[msgspec.Raw]
    has_more: bool


class _Object(Struct):
    id: str


class Api:
    """What is asked of Stripe with one key. Close it to close its client.

    The library itself tries again neither after 429 nor as late as `Retry-After` says, so all of that
    is done here. `chance` gives a number from 0 to 1, that many clients do not try again at once.
    """

    def __init__(
        self,
        api_key: str,
        api_url: str | None = None,
        *,
        pause: Pause = asyncio.sleep,
        chance: Callable[[], float] = random.random,
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
        self._chance = chance

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def pages(self, path: str, account: str = "", **query: Any) -> AsyncIterator[list[bytes]]:
        """A list's objects, a page at a time until Stripe says that there are no more.

        `account` is a connected account; empty for the key's own. Raises Unavailable if the list can't
        be had to its end, NotFound if there is no such list or account for this key.
        """
        after: str | None = None
        while True:
            cursor = {"starting_after": after} if after else {}
            page = _decoded(await self._get(path, account, limit=PAGE, **query, **cursor), _Page)
            objects = [bytes(each) for each in page.data]
            if objects:
                yield objects
            if not page.has_more:
                return
            last = _decoded(objects[-1], _Object).id if objects else after
            if last == after:
                raise Unavailable(f"Stripe's list {path} goes on, and gives nothing more")
            after = last

    async def one(self, path: str, account: str = "") -> bytes | None:
        """One object, or None if there is none. Raises Unavailable if Stripe can't be asked now."""
        try:
            return await self._get(path, account)
        except NotFound:
            return None

    async def _get(self, path: str, account: str, **query: Any) -> bytes:
        """GET, tried again a bounded number of times where that can help."""
        answer = "nothing"
        for attempt in range(TRIES):
            try:
                asked = await self._client.raw_request_async(
                    "get", path, stripe_account=account or None, **query
                )
                return bytes(asked.body, "utf-8")
            except StripeError as error:
                answer = _answer(error)
                if not _may_pass(error):
                    raise _refusal(error, path, account) from None
                wait = max(self._backoff(attempt), _retry_after(error))
            if attempt < TRIES - 1:
                await self._pause(min(wait, _LONGEST_WAIT_SECONDS))
        raise Unavailable(f"Stripe answered {answer}, {TRIES} times")

    def _backoff(self, attempt: int) -> float:
        return float(_FIRST_WAIT_SECONDS * 2**attempt * (1 + self._chance()) / 2)


def _decoded(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unavailable("Stripe's answer is of no shape that is known") from None


def _answer(error: StripeError) -> str:
    return str(error.http_status or type(error.__cause__ or error).__name__)


def _may_pass(error: StripeError) -> bool:
    """Whether trying again may help. Stripe's own word counts, but for a rate: that always passes."""
    if isinstance(error, APIConnectionError):
        return True
    status, advice = error.http_status or 0, (error.headers or {}).get("stripe-should-retry")
    if status != 429 and advice in {"true", "false"}:
        return advice == "true"
    return status in _PASSING or status >= 500


def _retry_after(error: StripeError) -> float:
    stated = (error.headers or {}).get("retry-after", "")
    return float(stated) if re.fullmatch("[0-9]{1,9}", stated) else 0.0


def _refusal(error: StripeError, path: str, account: str) -> NotFound | Unavailable:
    """What is refused; its text is ours, since Stripe's may repeat a part of the key."""
    said = f"Stripe answered {_answer(error)} to {path}" + (f" of {account}" if account else "")
    gone = error.http_status == 404 or (error.http_status == 403 and account)
    return NotFound(said) if gone else Unavailable(said)
