"""The wheel in an environment of its own, outside of the checkout. Run by `make package-test`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from msgspec import json

from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PACKAGES = ("handlers", "projections", "service")
STOP_SECONDS = 30.0

pytestmark = pytest.mark.timeout(1_800)  # it installs every package that Daybook needs


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The one that `make wheel` has built."""
    (found,) = (ROOT / "dist").glob("daybook-*.whl")
    return found


@pytest.fixture(scope="module")
def daybook(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel and the pinned packages."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    return environment / "bin" / "daybook"


def surroundings(**variables: str) -> dict[str, str]:
    """The environment's variables, none of which leads to the checkout or to an active environment."""
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("DAYBOOK_", "PYTHON"))
    }
    return {**others, "PATH": os.defpath, "COLUMNS": "120", **variables}


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert held == ours


def test_installed_it_runs_the_demo_and_works_on_the_books_that_the_demo_leaves(
    daybook: Path, tmp_path: Path
) -> None:
    def ran(*arguments: str, **variables: str) -> str:
        finished = subprocess.run(
            [daybook, *arguments],
            cwd=tmp_path,
            env=surroundings(**variables),
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "Traceback" not in finished.stderr
        return finished.stdout

    assert ran("--version").startswith("daybook ")
    shown = ran("demo", "--once", "--data-dir", "books", "--port", str(free_port()))
    assert "November 2025 (Stripe)" in shown
    assert shown.rstrip().splitlines()[-1].startswith("└")  # of its last table

    port = free_port()
    with open(tmp_path / "run.log", "wb") as log:
        running = subprocess.Popen(
            [daybook, "run", "--port", str(port)],
            cwd=tmp_path,
            env=surroundings(DAYBOOK_DATA_DIR="books"),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: ready(port), "it is ready")
        running.send_signal(signal.SIGTERM)
        assert running.wait(STOP_SECONDS) == 0
    finally:
        running.kill()

    place = {"DAYBOOK_DATA_DIR": "books"}
    status = json.decode(ran("status", "--json", **place))
    assert status["position"] > 0
    assert not any(any(part["lag_events"].values()) for part in status["partitions"])
    assert json.decode(ran("rebuild", "--json", **place))["live"]
    assert json.decode(ran("verify", "--json", **place))["holds"]
    copied = json.decode(ran("backup", "copies", "--json", **place))
    assert copied["position"] == status["position"]
    assert (tmp_path / copied["directory"] / "ledger.db").exists()


def ready(port: int) -> bool:
    """Whether its web process answers that it is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
