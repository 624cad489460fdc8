"""A peer: a consumer of webhooks in the style of the mirrors of Stripe in a database.

`python -m bench.mirror PORT FILE` verifies the signature, and upserts the object as JSON into one table of an
SQLite file, durably. It keeps no events: the last delivery of an object wins, in whatever order they come.
"""

import sqlite3
import sys

import uvicorn
from msgspec import json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from stripe import SignatureVerificationError, WebhookSignature

from bench.load import SECRET

_TABLE = "CREATE TABLE IF NOT EXISTS objects (id TEXT PRIMARY KEY, type TEXT, data TEXT) WITHOUT ROWID"
_UPSERT = "INSERT INTO objects VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"


def app(path: str) -> Starlette:
    database = sqlite3.connect(path, isolation_level=None)  # commits each statement
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(_TABLE)

    async def receive(request: Request) -> Response:
        body = await request.body()
        try:
            WebhookSignature.verify_header(body.decode(), request.headers["stripe-signature"], SECRET, 300)
        except SignatureVerificationError:
            raise HTTPException(400) from None
        mirrored = json.decode(body)["data"]["object"]
        row = (mirrored["id"], mirrored["object"], json.encode(mirrored).decode())
        database.execute(_UPSERT, row)
        return Response(b'{"received":true}', media_type="application/json")

    return Starlette(routes=[Route("/webhooks/stripe", receive, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[2]), port=int(sys.argv[1]), log_level="warning", access_log=False)
