"""What docs/deploy holds is true: metrics, commands, settings and sections that it names are there."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.json import encode
from prometheus_client.parser import text_string_to_metric_families

from service.bootstrap import prepare
from service.core.errors import SettingsError
from service.core.moments import rfc3339
from service.processes.lifeline import STOP_SECONDS
from service.settings import Settings, load
from service.sync.reconcile.report import ReconciliationSummary
from tests.commands.parsing import parse
from tests.docs.pages import anchors, links
from tests.support.paths import ROOT
from tests.support.postgres import PostgresServer
from tests.support.running import running, settings_for
from tests.support.senders import STANDARD, STRIPE
from tests.support.stores import prepared_database
from tests.support.waiting import PATIENCE_SECONDS

DEPLOY = ROOT / "docs" / "deploy"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
ALERTS_DOCUMENT = (ROOT / "docs" / "alerts.md").read_text("utf-8")
PROMETHEUS = {"up"}  # what it says itself
SCRAPED = {"instance", "job", "le"}  # labels that it adds, and the histogram's
FUNCTIONS = """absent delta deriv histogram_quantile increase max min min_over_time rate sum""".split()
KEYWORDS = "and by group_left offset on or unless".split()

RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SINGLE = yaml.safe_load((DEPLOY / "compose.single.yaml").read_text("utf-8"))
UNITS = sorted(DEPLOY.glob("*.service"))


def bare(expression: str) -> str:
    """An expression without what stands in quotes, and without durations."""
    return re.sub(r"\[[^\]]*\]|\boffset \w+", "", re.sub(r'"[^"]*"', '""', expression))


async def metrics(data_dir: Path, **given: Any) -> dict[str, set[str]]:
    """Every name that /metrics can give, with its labels."""
    async with running(data_dir, **given) as daybook:
        for amount in (100, 200):  # of which the second conflicts
            await daybook.post(STANDARD, STANDARD.event("1", amount), message_id="msg_1")
        moment = daybook.clock.now
        last = ReconciliationSummary(
            began_at=rfc3339(moment), finished_at=rfc3339(moment), missed={}, differing=0
        )
        await daybook.state.ledger.save_cursor("reconciled|stripe", encode(last), moment)
        text = (await daybook.http.get("/metrics")).text
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        for suffix in suffixes.get(family.type, ("",)):
            found[f"{family.name}{suffix}"] |= set()
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


async def test_every_metric_and_label_is_one_that_a_web_tells(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    prepare(settings_for(tmp_path))
    found = await metrics(tmp_path)
    found |= await metrics(tmp_path, database_url=prepared_database(postgres))

    for expression in EXPRESSIONS:
        text = bare(expression)
        names = set(re.findall(r"\bdaybook_\w+", text))
        assert names <= set(found), expression
        recorded = set(re.findall(r"\bdaybook:\w+", text))
        assert recorded <= RECORDED, expression
        if not recorded:
            labels = SCRAPED.union(*(found[name] for name in names))
            groups = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", text)
            matchers = [inner for braces in re.findall(r"{([^}]*)}", text) for inner in braces.split(",")]
            named = {name.strip() for group in groups for name in group.split(",")}
            named |= {re.split(r"[=!]", matcher)[0].strip() for matcher in matchers}
            assert named - {""} <= labels, expression


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_balanced_and_calls_what_is_known(expression: str) -> None:
    text = bare(expression).replace("$__rate_interval", "")
    opened: list[str] = []
    for sign in text:
        if sign in "({[":
            opened.append(sign)
        elif sign in ")}]":
            assert opened, expression
            assert opened.pop() + sign in {"()", "{}", "[]"}, expression
    assert not opened, expression
    names = set(re.findall(r"[A-Za-z_][\w:]*", re.sub(r"{[^}]*}|\b(?:by|on|group_left) \([^)]*\)", "", text)))
    metrics = {name for name in names if name.startswith(("daybook_", "daybook:"))} | PROMETHEUS
    assert names - metrics <= {*FUNCTIONS, *KEYWORDS}, expression


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_rate_is_of_a_counter(expression: str) -> None:
    counted = re.findall(r"\b(?:rate|increase)\((\w+)", expression)

    assert all(name.endswith(("_total", "_bucket", "_count", "_sum")) for name in counted), expression


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_says_how_bad_it_is_and_where_its_section_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert "for" in alert or "1h" in alert["expr"]  # what counts over an hour need not wait
    assert alert["annotations"]["summary"]
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert path == "docs/alerts.md"
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(ALERTS_DOCUMENT)


def test_every_section_on_an_alert_is_of_one_that_exists() -> None:
    sections = re.findall(r"^## (.+)$", ALERTS_DOCUMENT, re.MULTILINE)

    assert sections == [alert["alert"] for alert in ALERTS]


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not here")
@pytest.mark.parametrize(
    "command", [["check", "rules", "prometheus-rules.yaml"], ["test", "rules", "prometheus-rules.test.yaml"]]
)
def test_prometheus_takes_the_rules_and_they_raise_what_they_should(command: list[str]) -> None:
    ran = subprocess.run(["promtool", *command], cwd=DEPLOY, check=False, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_rules_tests_name_alerts_that_exist() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus-rules.test.yaml").read_text("utf-8"))

    named = {case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"]}

    assert named == {alert["alert"] for alert in ALERTS}


def test_the_dashboards_panels_have_places_of_their_own() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def unit(path: Path) -> RawConfigParser:
    read = RawConfigParser(strict=False, comment_prefixes=("#",), inline_comment_prefixes=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read(path)
    return read


@pytest.mark.parametrize("path", UNITS, ids=[path.name for path in UNITS])
def test_a_unit_runs_a_command_that_exists_and_leaves_it_time_to_stop(path: Path) -> None:
    service = unit(path)["Service"]

    program, *arguments = service["ExecStart"].split()

    assert program == "/opt/daybook/current/bin/daybook"
    assert parse(arguments).name in {"web", "worker"}
    assert int(service["TimeoutStopSec"]) > STOP_SECONDS
    assert service["KillSignal"] == "SIGTERM"
    assert service["Restart"] == "always"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
@pytest.mark.parametrize("path", UNITS, ids=[path.name for path in UNITS])
def test_systemd_finds_nothing_wrong_with_a_unit(path: Path, tmp_path: Path) -> None:
    there = shutil.which("true")
    copy = tmp_path / path.name.replace("@.", "@1.")
    copy.write_text(path.read_text().replace("/opt/daybook/current/bin/daybook", str(there)))

    found = subprocess.run(
        ["systemd-analyze", "verify", copy],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    ("compose", "commands"), [(COMPOSE, {"web", "worker"}), (SINGLE, {"run"})], ids=["many", "single"]
)
def test_compose_runs_commands_that_exist_and_leaves_them_time_to_stop(
    compose: dict[str, Any], commands: set[str]
) -> None:
    ours = {name: service for name, service in compose["services"].items() if "build" in service}

    assert {parse(service["command"]).name for service in ours.values()} == commands
    for service in ours.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > STOP_SECONDS
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert service["env_file"] == "daybook.env"
    for name, service in compose["services"].items():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        assert "healthcheck" in service or service.get("command") == ["worker"], name
        assert "stop_grace_period" in service
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists() or source == "./certificates"


SECRET_SETTINGS = re.compile(
    r"\b(DAYBOOK_(?:MASTER_KEY|API_KEYS|[A-Z]+_WEBHOOK_SECRETS|MXMERCHANT_URL_TOKENS))=(?:'([^']*)'|([^\s'`<]+))"
)


def with_own_secrets(directory: Path) -> Path:
    """The example of an environment, its secrets replaced by some of one's own."""
    own = {
        "DAYBOOK_MASTER_KEY": os.environ["DAYBOOK_MASTER_KEY"],
        "DAYBOOK_API_KEYS": "a-key-of-this-test,another-one-of-it:metrics",
        "DAYBOOK_STRIPE_WEBHOOK_SECRETS": STRIPE.secret,
    }
    path = directory / "daybook.env"
    example = (DEPLOY / "daybook.env.example").read_text()
    path.write_text(SECRET_SETTINGS.sub(lambda found: f"{found[1]}='{own[found[1]]}'", example))
    return path


def test_a_single_container_uses_its_own_stores_on_its_volume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, example = SINGLE["services"]["daybook"], with_own_secrets(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DAYBOOK_{name.upper()}", raising=False)
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)

    settings = load(_env_file=example)

    assert (settings.database_url, settings.redis_url, settings.host) == (None, None, "0.0.0.0")
    directory = re.findall(r"DAYBOOK_DATA_DIR=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert [volume.partition(":")[2] for volume in service["volumes"]] == directory
    assert service["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]  # plain HTTP: for a proxy only


def test_the_proxy_sends_to_the_webs_of_compose() -> None:
    servers = re.findall(r"^\s*server (\S+):(\d+)", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)

    assert {name for name, _ in servers} == {name for name in COMPOSE["services"] if name.startswith("web")}
    assert {port for _, port in servers} == {COMPOSE["services"]["web-a"]["environment"]["DAYBOOK_PORT"]}


def test_the_image_is_made_of_files_that_are_there_and_let_in() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    let_in = set(re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))

    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.+)$", dockerfile, re.MULTILINE)]
    assert {name for names in copied for name in names} == let_in
    assert all((ROOT / name).exists() for name in let_in)
    assert "--require-hashes -r requirements.txt" in dockerfile
    assert 'ENTRYPOINT ["daybook"]' in dockerfile


def test_every_setting_that_is_named_exists() -> None:
    known = {f"DAYBOOK_{name.upper()}" for name in Settings.model_fields}

    named = {
        name
        for path in DEPLOY.iterdir()
        for name in re.findall(r"\bDAYBOOK_[A-Z_]+\b", path.read_text("utf-8"))
    }

    assert named <= known
    assert set(re.findall(r"^\| `(DAYBOOK_[A-Z_]+)` \|", OPERATIONS, re.MULTILINE)) == known | {
        "DAYBOOK_REDIS_URL"
    }


def printed_secrets() -> set[tuple[str, str]]:
    """Every secret that the documents print, each with its variable."""
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").rglob("*") if path.is_file()]
    found = [(name, quoted or bare) for text in texts for name, quoted, bare in SECRET_SETTINGS.findall(text)]
    return {(name, part) for name, value in found for part in value.split(",")}


def test_a_secret_of_the_documents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = printed_secrets()

    assert len(printed) > 4
    for name, value in printed:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(SettingsError, match=f"^{name} holds a value not"):
                load()


def test_the_example_of_an_environment_can_be_used_with_secrets_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    example = with_own_secrets(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DAYBOOK_{name.upper()}", raising=False)

    settings = load(_env_file=example)

    assert settings.host == "0.0.0.0"
    assert settings.database_url
    assert settings.redis_url


def test_operations_and_alerts_tell_of_every_file() -> None:
    told_of = {
        Path(path).name
        for name in ("operations.md", "alerts.md")
        for path, _ in links(ROOT / "docs" / name)
        if path.startswith("deploy/")
    }

    assert {path.name for path in DEPLOY.iterdir()} - told_of == {"Dockerfile.dockerignore"}


@pytest.mark.parametrize("block", re.findall(r"```sh\n(.*?)```", OPERATIONS, re.DOTALL))
def test_a_block_of_commands_is_one_that_a_shell_can_read(block: str) -> None:
    read = subprocess.run(["bash", "-n"], input=block, check=False, capture_output=True, text=True)

    assert read.returncode == 0, read.stderr
