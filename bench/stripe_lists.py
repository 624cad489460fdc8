"""A stand-in of Stripe's lists that costs little: its objects differ in their numbers alone."""

import sys
from collections.abc import Callable

import uvicorn
from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.stripe_api import INVOICE
from tests.support.stripe_world import CHARGE, CUSTOMER

LISTS = {"customers": ("cus", CUSTOMER), "invoices": ("in", INVOICE), "charges": ("ch", CHARGE)}
_NUMBER = "0000000000"


def app(count: int) -> Starlette:
    """The lists of `LISTS` with `count` objects each; all others are empty."""
    routes = [Route(f"/v1/{name}", _list(*LISTS[name], count)) for name in LISTS]
    return Starlette(routes=[*routes, Route("/v1/{name}", _empty)])


def _list(prefix: str, shape: dict[str, object], count: int) -> Callable[[Request], Response]:
    names = {"id": f"{prefix}_{_NUMBER}"}
    names |= {"payment_intent": f"pi_{_NUMBER}", "customer": f"cus_{_NUMBER}"} if prefix == "ch" else {}
    template = json.encode(shape | names)

    def answer(request: Request) -> Response:
        after = request.query_params.get("starting_after")
        last = int(after.rpartition("_")[2]) if after else count
        numbers = range(last - 1, max(last - 1 - int(request.query_params["limit"]), -1), -1)
        objects = b",".join(template.replace(_NUMBER.encode(), b"%010d" % number) for number in numbers)
        has_more = b"true" if numbers and numbers[-1] > 0 else b"false"
        return Response(
            b'{"object":"list","data":[' + objects + b'],"has_more":' + has_more + b"}",
            media_type="application/json",
        )

    return answer


def _empty(_request: Request) -> Response:
    return Response(b'{"object":"list","data":[],"has_more":false}', media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app(int(sys.argv[1])), port=int(sys.argv[2]), log_level="warning", access_log=False)
