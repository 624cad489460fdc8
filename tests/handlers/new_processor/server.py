"""A stand-in of Meterly's API: pages of two, single objects, and a key that every request needs."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "the-key-of-meterly"
_SIZE = 2


class MeterlyApi:
    """What the processor would answer; the driver changes it."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {"events": [], "bills": [], "contracts": []}
        self.receipts: dict[str, dict[str, Any]] = {}
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/bills/{id}", self._bill),
                Route("/receipts/{id}", self._receipt),
                Route("/{kind}", self._list),
            ]
        )

    async def _list(self, request: Request) -> Response:
        things = self.lists[request.path_params["kind"]]
        if "from" in request.query_params:
            first, last = (int(request.query_params[bound]) for bound in ("from", "to"))
            things = [each for each in things if first <= each["created"] <= last]
        start = (int(request.query_params["page"]) - 1) * _SIZE
        pages = -(-len(things) // _SIZE)
        part = things[start : start + _SIZE]
        return self._answer(request, {"things": part, "pages": pages, "total": len(things)})

    async def _bill(self, request: Request) -> Response:
        bill_id = request.path_params["id"]
        return self._answer(request, next((b for b in self.lists["bills"] if b["bill"] == bill_id), None))

    async def _receipt(self, request: Request) -> Response:
        return self._answer(request, self.receipts.get(request.path_params["id"]))

    def _answer(self, request: Request, found: Any) -> Response:
        if request.headers.get("X-Meterly-Key") != KEY:
            return Response(status_code=401)
        return JSONResponse(found, 200 if found else 404)
