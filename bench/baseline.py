"""The baseline of ingest: the same server and routing, which verifies and decodes, and stores nothing."""

import sys
from datetime import UTC, datetime

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


app = Starlette(routes=[Route("/webhooks/stripe", receive, methods=["POST"], max_body_size=1 << 20)])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, server_header=False)
