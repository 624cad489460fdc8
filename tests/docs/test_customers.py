"""docs/customers.md is true: every example is what the shop's history really answers."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.reads.customers.catalog import CUSTOMER_READS
from service.worker.trainer import train
from tests.docs.examples import shows
from tests.docs.shop import AT, post_shop
from tests.support.paths import ROOT
from tests.support.running import Clock, Daybook, running

TEXT = (ROOT / "docs" / "customers.md").read_text("utf-8")
EXAMPLES = re.findall(r"`GET (/[^`]+)`\n\n```json\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
async def shop(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir, Clock(AT)) as daybook:
        await post_shop(daybook)
        await train(daybook.state.store, AT.date())
        yield daybook


async def test_every_example_is_what_the_shop_answers(shop: Daybook) -> None:
    for url, example in EXAMPLES:
        answer = await shop.http.get(url)
        assert answer.status_code == 200, url
        assert shows(json.loads(example), answer.json()), url


def test_every_read_has_an_example() -> None:
    shown = [url.partition("?")[0] for url, _ in EXAMPLES]
    for read in CUSTOMER_READS:
        pattern = re.sub("{.*?}", "[^/]+", read.path)
        assert any(re.fullmatch(pattern, url) for url in shown), read.path
