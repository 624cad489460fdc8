"""A stand-in of Stripe's API over real HTTP, written from its documented shapes: lists, errors, faults."""

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.paths import FIXTURES

KEY = "sk_live_example"
NESTED_LIMIT = 10  # of a list in an object, that many are shown
EXPAND_LEVELS = 4
BASIL = FIXTURES / "stripe" / "basil"

Fault = Callable[[Request], Response | None]


def fixture(name: str) -> dict[str, Any]:
    return json.loads((BASIL / f"{name}.json").read_text())


SUBSCRIPTION = fixture("customer.subscription.created")["data"]["object"]
INVOICE = fixture("invoice.finalized")["data"]["object"]
EVENT = fixture("customer.subscription.created")


def subscription(number: int, quantity: int = 3, **its: Any) -> dict[str, Any]:
    """A subscription of 49 dollars a month for each of its quantity."""
    thing = deepcopy(SUBSCRIPTION) | {"id": f"sub_{number}", "customer": f"cus_{number % 7}"} | its
    thing["items"]["data"][0]["quantity"] = quantity
    return thing


def invoice(number: int, **its: Any) -> dict[str, Any]:
    """An open invoice of 147 dollars."""
    return deepcopy(INVOICE) | {"id": f"in_{number}", "customer": f"cus_{number % 7}", "parent": None} | its


def event(
    number: int, kind: str, thing: dict[str, Any], created: int, account: str | None = None
) -> dict[str, Any]:
    """An event that tells of an object as it is now."""
    base = EVENT | {"id": f"evt_{number}", "type": kind, "created": created, "pending_webhooks": 0}
    return base | {"data": {"object": deepcopy(thing)}} | ({"account": account} if account else {})


class Shop:
    """One account: what it has, and what has happened."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.thin_events: dict[str, dict[str, Any]] = {}
        self._event_count = 0

    def happens(self, kind: str, thing: dict[str, Any], created: int) -> dict[str, Any]:
        """An object becomes so, and an event tells it."""
        self.objects[thing["id"]] = thing
        return self.tells(kind, thing, created)

    def tells(self, kind: str, thing: dict[str, Any], created: int) -> dict[str, Any]:
        """An event tells of a thing."""
        self._event_count += 1
        self.events.append(event(self._event_count, kind, thing, created))
        return self.events[-1]

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind, newest first."""
        found = [thing for thing in self.objects.values() if thing["object"] == kind]
        return sorted(found, key=lambda thing: thing["created"])[::-1]


def thin_event(
    number: int, snapshot: dict[str, Any], *, names_snapshot: bool = True, context: str | None = None
) -> dict[str, Any]:
    """The delivery of the thin event that is a snapshot event's twin."""
    thing = snapshot["data"]["object"]
    return {
        "id": f"evt_thin_{number}",
        "object": "v2.core.event",
        "type": f"v1.{snapshot['type']}",
        "livemode": snapshot.get("livemode", True),
        "created": f"{datetime.fromtimestamp(snapshot['created'], UTC):%Y-%m-%dT%H:%M:%S}.123456789Z",
        "context": context,
        "reason": None,
        "related_object": {
            "id": thing["id"],
            "type": thing["object"],
            "url": f"/v1/{thing['object']}s/{thing['id']}",
        },
    } | ({"snapshot_event": snapshot["id"]} if names_snapshot else {})


class StripeApi:
    """What is asked of it is remembered. `faults` answer first, one request each; None lets it pass."""

    def __init__(self) -> None:
        self.shops: dict[str, Shop] = {"": Shop()}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.versions: set[str | None] = set()
        self.faults: list[Fault] = []
        self.refused: dict[str, int] = {}  # lists, by the last part of their paths, with the status
        self.knows_expand = True
        self.longest_page = 100
        self.before: Callable[[str], None] = lambda _path: None
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/v1/events", self._events),
                Route("/v1/subscription_items", self._items),
                Route("/v1/invoice_payments", self._invoice_payments),
                Route("/v1/invoices/{id}/lines", self._lines),
                Route("/v1/events/{id}", self._event),
                Route("/v2/core/events/{id}", self._thin_event),
                Route("/v1/{kind}", self._list),
                Route("/v1/{kind}/{id}", self._one),
            ]
        )

    @property
    def shop(self) -> Shop:
        """The key's own account."""
        return self.shops[""]

    async def _events(self, request: Request) -> Response:
        def answer(shop: Shop) -> Response:
            since, until = (int(request.query_params[f"created[{bound}]"]) for bound in ("gte", "lte"))
            newest_first = sorted(shop.events, key=lambda thing: thing["created"])[::-1]
            return page(request, [thing for thing in newest_first if since <= thing["created"] <= until])

        return self._answer(request, answer)

    async def _event(self, request: Request) -> Response:
        def answer(shop: Shop) -> Response:
            return one(thing for thing in shop.events if thing["id"] == request.path_params["id"])

        return self._answer(request, answer)

    async def _thin_event(self, request: Request) -> Response:
        def answer(shop: Shop) -> Response:
            return one(filter(None, [shop.thin_events.get(request.path_params["id"])]))

        return self._answer(request, answer)

    async def _list(self, request: Request) -> Response:
        def answer(shop: Shop) -> Response:
            kind, status = request.path_params["kind"], request.query_params.get("status")
            since = int(request.query_params.get("created[gte]", "0"))
            listed = [
                thing
                for thing in shop.listed(kind.removesuffix("s"))
                if thing["created"] >= since and _has_status(thing, status)
            ]
            return page(request, listed, shown, self.longest_page)

        return self._answer(request, answer)

    async def _lines(self, request: Request) -> Response:
        return self._answer(
            request, lambda shop: self._nested(shop, request.path_params["id"], "lines", request)
        )

    async def _items(self, request: Request) -> Response:
        return self._answer(
            request, lambda shop: self._nested(shop, request.query_params["subscription"], "items", request)
        )

    async def _invoice_payments(self, request: Request) -> Response:
        return self._answer(
            request, lambda shop: self._nested(shop, request.query_params["invoice"], "payments", request)
        )

    def _nested(self, shop: Shop, object_id: str, field: str, request: Request) -> Response:
        return page(request, shop.objects[object_id][field]["data"], shown)

    async def _one(self, request: Request) -> Response:
        def answer(shop: Shop) -> Response:
            found = shop.objects.get(request.path_params["id"])
            return pretty(found) if found else refusal(404, "resource_missing")

        return self._answer(request, answer)

    def _answer(self, request: Request, answer: Callable[[Shop], Response]) -> Response:
        self.asked.append((request.url.path, dict(request.query_params)))
        self.versions.add(request.headers.get("Stripe-Version"))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refusal(401)
        self.before(request.url.path)
        if self.faults and (fault := self.faults.pop(0)(request)):
            return fault
        expand = request.query_params.getlist("expand[]")
        if expand and (not self.knows_expand or any(path.count(".") >= EXPAND_LEVELS for path in expand)):
            return refusal(400, "parameter_unknown")
        if status := self.refused.get(request.url.path.rpartition("/")[2]):
            return refusal(status)
        context = request.headers.get("Stripe-Context", "").rpartition("/")[2]
        shop = self.shops.get(request.headers.get("Stripe-Account", context))
        return answer(shop) if shop else refusal(403, "account_invalid")


def one(found: Iterator[dict[str, Any]]) -> Response:
    """The object that was found, or the answer that there is none."""
    thing = next(found, None)
    return pretty(thing) if thing else refusal(404, "resource_missing")


Shown = Callable[[dict[str, Any], set[str]], dict[str, Any]]


def page(
    request: Request, listed: list[dict[str, Any]], show: Shown | None = None, longest: int = 100
) -> Response:
    """A page of a list, as Stripe's cursors have it."""
    after = request.query_params.get("starting_after")
    limit = min(int(request.query_params.get("limit", "10")), longest)
    places = [i for i, thing in enumerate(listed) if thing["id"] == after]
    if after and not places:
        return refusal(400, "resource_missing")
    start = places[0] + 1 if after else 0
    part = listed[start : start + limit]
    if show:
        expand = {path.removeprefix("data.") for path in request.query_params.getlist("expand[]")}
        part = [show(thing, expand) for thing in part]
    has_more = start + limit < len(listed)
    return pretty({"object": "list", "data": part, "has_more": has_more, "url": request.url.path})


def _has_status(thing: dict[str, Any], status: str | None) -> bool:
    """Whether a list of this `status` has an object; without one, no subscription that is canceled."""
    if status == "all" or (status is None and thing["object"] != "subscription"):
        return True
    return thing["status"] == status if status else thing["status"] != "canceled"


def shown(thing: dict[str, Any], expand: set[str]) -> dict[str, Any]:
    """An object as a list shows it: nested lists in part, and nothing expanded that was not asked for."""
    thing = deepcopy(thing)
    for field in ("lines", "items", "payments"):
        if thing.get(field):
            data = thing[field]["data"]
            thing[field] |= {"data": data[:NESTED_LIMIT], "has_more": len(data) > NESTED_LIMIT}
    if thing["object"] == "invoice" and "payments" not in expand:
        thing.pop("payments", None)
    if thing.get("discounts") and not any(path.startswith("discounts") for path in expand):
        thing["discounts"] = [each["id"] if isinstance(each, dict) else each for each in thing["discounts"]]
    _hide_tiers(thing, expand)
    for item in (item for phase in thing.get("phases", ()) for item in phase["items"]):
        if "phases.items.price" not in expand:
            item["price"] = item["price"]["id"]
    return thing


def _hide_tiers(thing: dict[str, Any], expand: set[str]) -> None:
    """No list can show the tiers of its items' prices: they are too deep."""
    shows = "price.tiers" in expand
    for item in [*([] if shows else [thing]), *(thing.get("items") or {}).get("data", ())]:
        if isinstance(item.get("price"), dict):
            item["price"].pop("tiers", None)


def pretty(document: Any) -> Response:
    """JSON as Stripe writes it: over several lines."""
    return Response(json.dumps(document, indent=2), media_type="application/json")


def refusal(status: int, code: str | None = None, **headers: str) -> Response:
    """An error in Stripe's shape; underscores in header names stand for hyphens."""
    error = {"type": "api_error", "code": code, "message": "An example that names sk_live_***mple"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": error}, status, named)


def cut_off(_request: Request) -> Response:
    """A connection that is reset in the middle of a page."""

    async def body() -> AsyncIterator[bytes]:
        yield b'{"object": "list", "data": ['
        raise ConnectionResetError

    return StreamingResponse(body(), headers={"Content-Length": "5000"}, media_type="application/json")


@contextmanager
def serve(api: Any) -> Iterator[Any]:
    """The stand-in on a free port of loopback, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    api.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield api
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
