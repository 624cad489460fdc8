"""Data directories filled once a session by posting; tests read copies of them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from service.demo import posts
from tests.web.running import Clock, Daybook, running

DEMO = {
    "stripe_webhook_secrets": posts.STRIPE_SECRET,
    "mxmerchant_webhook_secrets": posts.MXMERCHANT_SECRET,
}

JSON = {"Content-Type": "application/json"}


def filled(data_dir: Path, fill: Callable[[Daybook], Awaitable[None]]) -> Path:
    """The data directory, with what `fill` posts, and its books."""

    async def run() -> None:
        async with running(data_dir, Clock(datetime.now(UTC)), **DEMO) as daybook:
            await fill(daybook)
            await daybook.catch_up()

    asyncio.run(run())
    return data_dir


async def post_november(daybook: Daybook) -> None:
    for post in posts.stripe_posts():
        answer = await daybook.http.post(post.path, content=post.body, headers=post.headers | JSON)
        assert answer.json()["duplicate"] is False


async def post_mx_contracts(daybook: Daybook) -> None:
    post = posts.mxmerchant_post()
    answer = await daybook.http.post(post.path, content=post.body, headers=post.headers | JSON)
    assert answer.json()["duplicate"] is False
