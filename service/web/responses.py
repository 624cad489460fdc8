"""What is sent of a read's answer: its bytes in slices, or that the client has them already."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_SLICE_BYTES = 256 << 10  # a slice keeps the event loop for less than a millisecond


class Answer(Struct, frozen=True, kw_only=True):
    """A read's answer as bytes. `next_page` are the parameters of the next page, if there is one.

    `path` is that of the read, with variables.
    """

    path: str
    body: bytes
    etag: str
    media_type: str
    next_page: Mapping[str, Any] | None = None
    file_name: str = ""


def respond(request: Request, answer: Answer) -> Response:
    """The answer with its ETag, or 304 if the caller has it already."""
    headers = {
        "ETag": answer.etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept, Authorization, X-API-Key",
    }
    if answer.next_page:
        parameters_of_page = urlencode({**request.query_params, **answer.next_page})
        headers["Link"] = f'<{request.url.path}?{parameters_of_page}>; rel="next"'
    if answer.file_name:
        headers["Content-Disposition"] = f'attachment; filename="{answer.file_name}"'
    if _has(request, answer.etag):
        return Response(status_code=304, headers=headers)
    return _SlicedResponse(answer.body, headers=headers, media_type=answer.media_type)


def _has(request: Request, etag: str) -> bool:
    """Whether the caller names this tag, weak or not, or any."""
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")} if given else set()
    return etag.removeprefix("W/") in tags or "*" in tags


class _SlicedResponse(Response):
    """A response that leaves the event loop to others between the slices of its body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if len(self.body) <= _SLICE_BYTES:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for start in range(0, len(body), _SLICE_BYTES):
            end = start + _SLICE_BYTES
            await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
            await asyncio.sleep(0)
