"""The page that shows the description, in a real browser that reaches nothing but this host."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from service.reads.catalog import READS
from tests.support.running import Daybook
from tests.support.waiting import PATIENCE_SECONDS
from tests.web.http_server import serve

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=8000 --dump-dom"
).split()


async def test_the_page_names_no_other_host_and_all_that_it_names_is_here(daybook: Daybook) -> None:
    page = await daybook.http.get("/docs")

    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"].startswith("text/html")
    assert len(named) == 3
    assert "//" not in page.text
    for address in named:
        assert (await daybook.http.get(f"/{address}")).status_code == 200


async def test_an_asset_that_is_not_there_is_a_404_problem(daybook: Daybook) -> None:
    for path in (
        "/docs/assets/nothing.js",
        "/docs/assets/../../settings.py",
        "/docs/assets/%2e%2e/__init__.py",
    ):
        answer = await daybook.http.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_a_browser_without_a_network_shows_every_path(data_dir: Path, tmp_path: Path) -> None:
    assert BROWSER
    with serve(data_dir) as (host, port):
        ran = subprocess.run(
            [
                BROWSER,
                *FLAGS,
                f"--user-data-dir={tmp_path / 'browser'}",
                f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}",
                f"http://{host}:{port}/docs",
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        described = httpx.get(f"http://{host}:{port}/openapi.json").json()["paths"]

    dom = ran.stdout.replace("\u200b", "").replace("<wbr>", "")
    shown = set(re.findall(r'data-path="([^"]+)"', dom))
    assert {read.path for read in READS} <= shown
    assert shown == set(described)
