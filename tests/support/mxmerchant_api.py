"""A stand-in of MX Merchant's API: contracts and payments in lists, paged by offset."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.paths import FIXTURES

MERCHANT = "1000000001"
RECORDS = FIXTURES / "mxmerchant" / "contracts.json"


def payment(number: int, amount: str = "11.11", status: str = "Approved", **its: Any) -> dict[str, Any]:
    """A payment as the API lists it; a refund has a negative amount."""
    created = "2025-10-02T18:21:00Z"
    base = {"id": number, "merchantId": MERCHANT, "amount": amount, "status": status, "created": created}
    return base | its


class MxApi:
    """What the processor would answer; tests change it."""

    def __init__(self) -> None:
        self.contracts: list[dict[str, Any]] = json.loads(RECORDS.read_text())["records"]
        self.payments: list[dict[str, Any]] = []
        self.missing = 0
        self.failures = 0
        self.refused: dict[str, int] = {}  # lists, by their paths, with the status
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/checkout/v3/contract", self._contracts),
                Route("/checkout/v3/payment", self._payments),
                Route("/checkout/v3/payment/{id}", self._payment),
            ]
        )

    async def _contracts(self, request: Request) -> Response:
        return self._page(request, self.contracts)

    async def _payments(self, request: Request) -> Response:
        return self._page(request, self.payments)

    async def _payment(self, request: Request) -> Response:
        found = [each for each in self.payments if str(each["id"]) == request.path_params["id"]]
        return JSONResponse(found[0]) if found else Response(status_code=404)

    def _page(self, request: Request, listed: list[dict[str, Any]]) -> Response:
        assert request.query_params["merchantId"] == MERCHANT
        if self.failures:
            self.failures -= 1
            return Response(status_code=429, headers={"Retry-After": "3"})
        if status := self.refused.get(request.url.path):
            return Response(status_code=status)
        offset = int(request.query_params["offset"])
        part = listed[offset : offset + min(int(request.query_params["limit"]), 10)]
        return JSONResponse({"recordCount": len(listed) + self.missing, "records": part})
