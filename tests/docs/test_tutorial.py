"""docs/tutorial.md is true: its program, its requests and its commands run on a real Daybook."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.docs.examples import shows
from tests.support.processes import SECRET, DaybookProcesses
from tests.support.senders import sign_stripe
from tests.support.stripe_api import KEY, StripeApi, serve
from tests.support.stripe_world import CENTS, StripeWorld, at
from tests.support.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "tutorial.md").read_text("utf-8")
RECIPES = (DOCS / "recipes.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"
REQUESTS = re.findall(r"^curl -s '([^']+)'\n```\n\n```(json|csv)\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
COMMAND_SECONDS = 60


def block(after: str, language: str = "") -> str:
    """The first code block of a language that follows some words of the page."""
    found = re.search(rf"^```{language}\n(.*?)^```$", TEXT.partition(after)[2], re.MULTILINE | re.DOTALL)
    assert found, after
    return found[1]


def run(daybook: DaybookProcesses, *arguments: str) -> str:
    """What a program prints, in the directory and with the settings of a running Daybook."""
    environment = daybook.environment | {"BILLER_SECRET": SECRET, "DAYBOOK_URL": daybook.url}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=daybook.data_dir,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    return ran.stdout


@pytest.fixture(scope="module")
def daybook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaybookProcesses]:
    """`daybook run`, with the biller's program in its directory."""
    running = DaybookProcesses(tmp_path_factory.mktemp("tutorial"))
    running.environment["DAYBOOK_STANDARD_WEBHOOK_SECRETS"] = f"acme={SECRET}"
    (running.data_dir / "biller.py").write_text(block("Save it as `biller.py`", "python"))
    running.start("run")
    try:
        running.wait_ready()
        yield running
        running.processes["run"].terminate()
        running.processes["run"].wait(30)
    finally:
        running.stop()


@pytest.fixture(scope="module", autouse=True)
def first_output(daybook: DaybookProcesses) -> str:
    """What the biller's program prints when it posts its three events for the first time."""
    printed = run(daybook, "biller.py")
    wait_until(lambda: daybook.caught_up(3), "the books hold the three events")
    return printed


def test_the_billers_program_prints_the_positions_of_its_events(first_output: str) -> None:
    assert first_output == block("On an empty Daybook it prints:")


def test_the_billers_program_can_run_twice(daybook: DaybookProcesses, first_output: str) -> None:
    again = run(daybook, "biller.py")

    assert again == first_output.replace('"duplicate":false', '"duplicate":true')


@pytest.mark.parametrize(("url", "language", "example"), REQUESTS, ids=[url for url, _, _ in REQUESTS])
def test_a_request_is_answered_as_the_page_shows(
    daybook: DaybookProcesses, url: str, language: str, example: str
) -> None:
    answer = httpx.get(url.replace(ADDRESS, daybook.url), timeout=COMMAND_SECONDS)

    assert answer.status_code == 200, answer.text
    if language == "csv":
        assert answer.text.split() == example.split()
    else:
        assert shows(json.loads(example), answer.json())


def test_every_request_of_the_page_is_answered(daybook: DaybookProcesses) -> None:
    urls = re.findall(r"^curl -s '([^']+)'", TEXT, re.MULTILINE)

    assert len(urls) > len(REQUESTS)
    for url in urls:
        assert httpx.get(url.replace(ADDRESS, daybook.url), timeout=COMMAND_SECONDS).status_code == 200, url


def test_every_request_of_the_recipes_is_answered(daybook: DaybookProcesses) -> None:
    paths = re.findall(r"(/api/[\w/-]+(?:\?[\w=&-]+)?)", RECIPES)

    assert paths
    for path in paths:
        assert httpx.get(f"{daybook.url}{path}", timeout=COMMAND_SECONDS).status_code == 200, path


def test_explain_traces_the_figure_to_the_signed_bytes(daybook: DaybookProcesses) -> None:
    (command,) = re.findall(r"^daybook (explain .+)$", TEXT, re.MULTILINE)

    printed = run(daybook, "-m", "service.cli", *command.split())

    shown = block("daybook explain mrr --on 2025-11-30\n```\n")
    moment = re.compile(r"signed \S+")
    assert moment.sub("signed", printed).split() == moment.sub("signed", shown).split()


def test_verify_finds_everything_in_order(daybook: DaybookProcesses) -> None:
    assert "unbroken" in run(daybook, "-m", "service.cli", "verify")


def test_the_settings_of_the_page_start_a_daybook(tmp_path: Path) -> None:
    settings = "".join(re.findall(r"^```env\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
    (tmp_path / ".env").write_text(re.sub(r"whsec_[a-z-]+", SECRET, settings))  # which the page invents
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}

    loaded = subprocess.run(
        [sys.executable, "-c", "from service.settings import load; print(load())"],
        cwd=tmp_path,
        env=clean,
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )

    assert loaded.returncode == 0, loaded.stderr
    assert "var/test" in loaded.stdout


@pytest.fixture
def api() -> Iterator[StripeApi]:
    """Stripe's API, with a contract that has been billed once."""
    api = StripeApi()
    world = StripeWorld(api.shop)
    subscription = world.subscribe(world.customer(at(0)), world.product(at(0)), at(0), 2)
    world.pay(world.bill(subscription, at(0)), at(1))
    with serve(api):
        yield api


def test_a_backfill_on_an_empty_directory_prints_what_the_page_shows_and_webhooks_come_on_top(
    tmp_path: Path, api: StripeApi
) -> None:
    (command,) = re.findall(r"^daybook (backfill .+)$", TEXT, re.MULTILINE)
    with DaybookProcesses(tmp_path) as history:
        history.environment |= {
            "DAYBOOK_STRIPE_API_KEY": KEY,
            "DAYBOOK_STRIPE_API_URL": api.url,
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": SECRET,
        }

        printed = run(history, "-m", "service.cli", *command.split())

        assert printed.split() == block("that was billed once, it prints:").split()
        history.start("run")
        history.wait_ready()
        (request,) = re.findall(f"{ADDRESS}([^']+)", block("Start `daybook run` again", "sh"))
        assert mrr_at(history, request, 6) == (2 * CENTS, 1.0)

        for event in api.shop.events:
            body, now = json.dumps(event).encode(), datetime.now(UTC)
            signed = sign_stripe(body, now, "", SECRET)
            httpx.post(f"{history.url}/webhooks/stripe", content=body, headers=signed).raise_for_status()
        assert mrr_at(history, request, 6 + len(api.shop.events)) == (2 * CENTS, 0.0)


def mrr_at(daybook: DaybookProcesses, request: str, position: int) -> tuple[int, float]:
    """The MRR of a request, and how much of it is inferred, once the books are at a position."""
    wait_until(lambda: daybook.caught_up(position), "the books hold what came")
    answer = httpx.get(f"{daybook.url}{request}", timeout=COMMAND_SECONDS).json()
    return answer["mrr_cents"], answer["meta"]["inferred_share"]
