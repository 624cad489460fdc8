"""What billers and processors post: random scenarios, shuffled, some of it told again, all from one seed."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from msgspec import Raw, Struct, json

from service.core.events import Event
from tests.support.paths import FIXTURES
from tests.support.random_scenarios import Choices, Recorder, add_customer
from tests.support.senders import STRIPE, secret, sign_standard

CUSTOMERS = 200  # few enough that their histories grow, and that workers meet in them
WINDOW = 300  # deliveries wait here and leave at random: this is how far order is lost
AGAIN = 0.12  # the share of deliveries that were sent before

BILLERS = {"stripe": "north", "acme": "south", "mxmerchant": "field"}  # by the processors of a scenario
SECRETS = {f"standard.{name}": secret(f"the {name} biller's own") for name in BILLERS.values()}
SETTINGS = {
    "DAYBOOK_STANDARD_WEBHOOK_SECRETS": ",".join(
        f"{processor.removeprefix('standard.')}={key}" for processor, key in SECRETS.items()
    ),
    "DAYBOOK_STRIPE_WEBHOOK_SECRETS": STRIPE.secret,
}

_STRIPE = FIXTURES / "stripe"

T = TypeVar("T")


class Delivery(Struct, frozen=True, kw_only=True):
    """What is posted, any number of times."""

    path: str
    processor: str
    event_id: str
    body: bytes

    @property
    def cause(self) -> str:
        """The event's name in the ledger."""
        return f"{self.processor}:{self.event_id}"

    def headers(self) -> dict[str, str]:
        """Its headers, signed now."""
        now = datetime.now(UTC)
        if self.processor == STRIPE.processor:
            return STRIPE.sign(self.body, now, self.event_id, STRIPE.secret)
        return sign_standard(self.body, now, self.event_id, SECRETS[self.processor])


class Traffic:
    """Deliveries without end; `made` are all that ever left, once each, in the scenario's order."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"traffic {seed}")
        self._stories = _stories(self._chance)
        self._made = 0
        self._waiting: list[tuple[int, Delivery]] = []
        self._sent: list[tuple[int, Delivery]] = []

    def next(self) -> Delivery:
        """One that waited, or one that was sent before."""
        if self._sent and self._chance.random() < AGAIN:
            return self._chance.choice(self._sent)[1]
        while len(self._waiting) < WINDOW:
            for delivery in next(self._stories):
                self._made += 1
                self._waiting.append((self._made, delivery))
        self._sent.append(self._waiting.pop(self._chance.randrange(len(self._waiting))))
        return self._sent[-1][1]

    @property
    def sent(self) -> list[Delivery]:
        """Every delivery that was sent, once, in the order in which it was made."""
        return [delivery for _, delivery in sorted(self._sent, key=lambda made: made[0])]


def _stories(chance: random.Random) -> Iterator[list[Delivery]]:
    """Deliveries that belong together: a customer's events by in-house billers, or Stripe's examples."""
    recorder = Recorder(_Chance(chance), "UTC")
    for number in range(1_000_000):
        if number % 12 == 7:
            yield _stripe_examples(number)
        elif number % 4 == 3:
            yield _unused(number)
        else:
            processor, account = chance.choice((("stripe", ""), ("stripe", "acct_b"), ("acme", "")))
            known = len(recorder.events)
            add_customer(recorder, (processor, account, f"cus_{chance.randint(1, CUSTOMERS)}"))
            yield [_in_house(event) for event in recorder.events[known:]]


class _Chance(Choices):
    """Choices that fall by a seed alone."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def pick(self, options: Sequence[T]) -> T:
        return self._chance.choice(options)

    def number(self, low: int, high: int) -> int:
        return self._chance.randint(low, high)

    def sometimes(self, out_of: int = 3) -> bool:
        return self._chance.randrange(out_of) == 0


def _in_house(event: Event) -> Delivery:
    """An event of the scenario as its biller posts it."""
    body = {
        "type": event.type,
        "occurred_at": event.occurred_at,
        "account": event.account,
        "data": event.data,
        "before": Raw(event.before) if event.before else None,
    }
    return _posted(BILLERS[event.processor], event.event_id, body)


def _posted(biller: str, event_id: str, body: dict) -> Delivery:
    return Delivery(
        path=f"/webhooks/standard/{biller}",
        processor=f"standard.{biller}",
        event_id=event_id,
        body=json.encode(body),
    )


def _unused(number: int) -> list[Delivery]:
    """An event that the books don't use, and the same id with other content: whichever comes first stays."""
    payload = {"type": "cart.abandoned", "occurred_at": "2025-06-01T00:00:00Z", "data": {}}
    return [_posted("south", f"evt_cart_{number}", {**payload, "cart": cart}) for cart in (1, 2)]


def _stripe_examples(number: int) -> list[Delivery]:
    """Every example payload of Stripe's, in both families, with ids of its own."""
    return [
        Delivery(
            path=STRIPE.path,
            processor=STRIPE.processor,
            event_id=event_id.replace("Example", f"Storm{number}x"),
            body=text.replace("Example", f"Storm{number}x").encode(),
        )
        for event_id, text in _examples()
    ]


@cache
def _examples() -> list[tuple[str, str]]:
    texts = [path.read_text() for path in sorted(_STRIPE.glob("*/*.json"))]
    return [(json.decode(text)["id"], text) for text in texts]
