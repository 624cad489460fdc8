"""The start of `daybook web`: what it says in the log, and a port that is taken."""

import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.web import server
from tests.support.senders import MX_TOKEN


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(tmp_path))


def start(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["web", *arguments])


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "serve", lambda _settings: None)


@pytest.mark.usefixtures("_no_server")
def test_variables_that_are_no_settings_are_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    monkeypatch.setenv("DAYBOOK_PROT", "9000")
    monkeypatch.setenv("DAYBOOK_LIFELINE", str(tmp_path / "run.lock"))
    (tmp_path / "run.lock").touch()
    (tmp_path / ".env").write_text("DAYBOOK_STRIPE_SECRET=x\nDAYBOOK_PORT=9000\nOTHER=1\n")
    monkeypatch.setattr("service.processes.lifeline.follow_lifeline", lambda: None)

    assert start().exit_code == 0

    (line,) = (line for line in logged if line["event"] == "unknown_settings")
    assert {"DAYBOOK_PROT", "DAYBOOK_STRIPE_SECRET"} <= set(line["variables"])
    assert not {"DAYBOOK_PORT", "DAYBOOK_LIFELINE", "DAYBOOK_DATA_DIR", "OTHER"} & set(line["variables"])
    assert line["log_level"] == "warning"


@pytest.mark.usefixtures("_no_server")
@pytest.mark.parametrize("secrets", [{}, {"DAYBOOK_MXMERCHANT_URL_TOKENS": MX_TOKEN.secret}])
def test_no_secret_at_all_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, logged: list[Any], secrets: dict[str, str]
) -> None:
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    assert start().exit_code == 0

    said = [line["log_level"] for line in logged if line["event"] == "no_webhook_secret"]
    assert said == ([] if secrets else ["warning"])


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_taken_port_is_one_line_that_names_the_variable(workers: str, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = start("--workers", workers, "--host", host, "--port", port)

    assert ended.exit_code == 3
    assert ended.stderr == (
        f"daybook: DAYBOOK_HOST and DAYBOOK_PORT: can't listen at {host}, port {port}: "
        "Address already in use\n"
    )


def test_an_address_of_another_machine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_API_KEYS", "a-key-of-this-test")

    ended = start("--host", "192.0.2.7")

    assert (ended.exit_code, ended.stderr.count("\n")) == (3, 1)
    assert "can't listen at 192.0.2.7, port 8000" in ended.stderr
