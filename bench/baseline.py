"""What Daybook's web process is compared with: the same server and routing, which stores nothing.

`python -m bench.baseline PORT [FILE]` verifies and decodes webhooks, and answers reads with the bodies of a
JSON file, by path. With `imports` in place of a file it loads what the web process loads.
"""

import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import uvicorn
from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.load import SECRET
from handlers.stripe import signature


async def receive(request: Request) -> Response:
    body = await request.body()
    signature.verify(dict(request.headers), body, (SECRET,), datetime.now(UTC))
    json.decode(body)
    return Response(b'{"received":true}', media_type="application/json")


def answer(path: str, body: bytes) -> Route:
    async def read(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return Route(path, read)


def app(bodies: dict[str, str]) -> Starlette:
    webhooks = Route("/webhooks/stripe", receive, methods=["POST"], max_body_size=1 << 20)
    return Starlette(routes=[webhooks, *(answer(path, body.encode()) for path, body in bodies.items())])


def main(port: str, option: str = "") -> None:
    bodies = {"/healthz": "{}"}
    if option == "imports":
        for name in ("service.cli", "service.commands.web", "service.web.server"):
            import_module(name)
    elif option:
        bodies |= json.decode(Path(option).read_bytes())
    uvicorn.run(app(bodies), port=int(port), log_level="warning", access_log=False, server_header=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
