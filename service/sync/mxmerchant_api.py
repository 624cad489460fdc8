"""MX Merchant's API: contracts and payments, fetched through the caller's HTTP client."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import msgspec
from msgspec import Meta, Struct

from handlers.mxmerchant.payloads import KEY_PATTERN
from handlers.standard.translation import parse
from service.core.errors import Unavailable, Unreadable

PAGE_SIZE = 100
MAX_ATTEMPTS = 4
_MAX_WAIT_SECONDS = 10.0

Pause = Callable[[float], Awaitable[None]]


def make_client(api_url: str, key: str, secret: str) -> httpx.AsyncClient:
    """A client for the API with its credentials and timeouts; the caller closes it."""
    return httpx.AsyncClient(
        base_url=api_url,
        auth=httpx.BasicAuth(key, secret),
        timeout=httpx.Timeout(10, connect=5),
        headers={"Accept": "application/json"},
    )


async def fetch_contracts(
    client: httpx.AsyncClient, merchant_id: str, *, pause: Pause = asyncio.sleep
) -> list[dict[str, Any]]:
    """Every contract record of a merchant, over all pages. Raises Unavailable if one can't be fetched."""
    records: dict[str, dict[str, Any]] = {}
    offset, count = 0, 1
    while offset < count:
        query = {"merchantId": merchant_id, "limit": PAGE_SIZE, "offset": offset}
        page = parse(_decode_json(await _get(client, "/checkout/v3/contract", query, pause)), _Page)
        count = page.record_count
        if not page.records:
            break
        offset += len(page.records)
        records |= {str(record.get("id")): record for record in page.records}
    if len(records) != count:  # with a short list, the change of a missing contract would go unnoticed
        raise Unavailable(f"MX Merchant listed {len(records)} of {count} contracts")
    return list(records.values())


class _Page(Struct, frozen=True, rename="camel"):
    record_count: Annotated[int, Meta(ge=0)]
    records: list[dict[str, Any]]


async def fetch_payment_pages(
    client: httpx.AsyncClient, merchant_id: str, *, pause: Pause = asyncio.sleep
) -> AsyncIterator[list[dict[str, Any]]]:
    """Every payment and refund of a merchant, a page at a time. Raises Unavailable if a page is missing.

    A new payment during the listing shifts the others to later pages, so one may be listed twice; none is
    left out.
    """
    offset, count = 0, 1
    while offset < count:
        query = {"merchantId": merchant_id, "limit": PAGE_SIZE, "offset": offset}
        page = parse(_decode_json(await _get(client, "/checkout/v3/payment", query, pause)), _Page)
        count = page.record_count
        if not page.records:
            break
        offset += len(page.records)
        yield page.records
    if offset < count:
        raise Unavailable(f"MX Merchant listed {offset} of {count} payments")


async def fetch_payment(
    client: httpx.AsyncClient, payment_id: str, *, pause: Pause = asyncio.sleep
) -> dict[str, Any] | None:
    """A payment (or refund) by its id, or None if there is none.

    Raises Unavailable if the API can't be asked now, and Unreadable if it refuses this one payment.
    """
    if not re.fullmatch(KEY_PATTERN, payment_id):  # from an unsigned body it might lead to another path
        return None
    response = await _get(client, f"/checkout/v3/payment/{payment_id}", {}, pause)
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    try:
        return parse(_decode_json(response), dict[str, Any])
    except Unavailable as refusal:
        raise Unreadable(str(refusal)) from None


async def _get(client: httpx.AsyncClient, path: str, query: dict[str, Any], pause: Pause) -> httpx.Response:
    """GET, repeated after transient errors, `MAX_ATTEMPTS` times at most."""
    answer = "nothing"
    for attempt in range(MAX_ATTEMPTS):
        wait = 0.2 * 2**attempt
        try:
            response = await client.get(path, params=query)
        except httpx.TransportError as error:
            answer = type(error).__name__
        else:
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not response.is_server_error:
                return response
            answer = str(response.status_code)
            wait = _retry_after(response, wait)
        if attempt < MAX_ATTEMPTS - 1:
            await pause(wait)
    raise Unavailable(f"MX Merchant answered {answer}, {MAX_ATTEMPTS} times")


def _retry_after(response: httpx.Response, default: float) -> float:
    header = response.headers.get("Retry-After", "")
    return min(float(header), _MAX_WAIT_SECONDS) if re.fullmatch("[0-9]{1,9}", header) else default


def _decode_json(response: httpx.Response) -> Any:
    if response.status_code != httpx.codes.OK:
        raise Unavailable(f"MX Merchant answered {response.status_code}")
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("MX Merchant's answer is no JSON") from None
