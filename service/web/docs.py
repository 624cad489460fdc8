"""The API's description and its page, which works offline: the page's script comes with a package."""

from functools import cache

from msgspec import json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from handlers.standard.translation import event_schema
from service.web.openapi import description

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Daybook API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
<div id="api"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null})</script>
</body>
</html>
"""


def docs_routes() -> list[Route | Mount]:
    """The description, the in-house event format, and the page."""
    return [
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/schemas/event.json", _event_schema, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        Mount("/docs/assets", StaticFiles(packages=[("swagger_ui", "static")])),
    ]


async def _openapi(_request: Request) -> Response:
    return Response(_description_bytes(), media_type="application/json")


async def _event_schema(_request: Request) -> Response:
    return Response(_event_schema_bytes(), media_type="application/schema+json")


@cache
def _description_bytes() -> bytes:
    return json.encode(description())


@cache
def _event_schema_bytes() -> bytes:
    return json.encode(event_schema())


async def _docs(_request: Request) -> Response:
    return HTMLResponse(_PAGE)
