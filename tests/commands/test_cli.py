"""The command line as a whole: what it loads, lists, completes and refuses."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import COMMANDS, app
from service.processes.supervisor import PROCESSES
from tests.commands.parsing import NAMES, each_command, examples, find_command, parse

LISTED = {name: line for group in COMMANDS.values() for name, (_, line) in group.items()}
EXECUTED_WITH_STORES = {
    "sqlalchemy.engine",
    "starlette.applications",
    "pydantic_settings.main",
    "pyarrow.lib",
}


def imported(*arguments: str) -> set[str]:
    """The modules that a process has imported which ran `daybook` with each of the arguments lists."""
    script = (
        "import sys\n"
        "from contextlib import suppress\n"
        "from service.cli import app\n"
        "for words in sys.argv[1:]:\n"
        "    with suppress(SystemExit):\n"
        "        app(words.split(), prog_name='daybook')\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return set(ran.stderr.split())


def test_the_list_of_commands_imports_no_command() -> None:
    found = imported("--help", "--version")

    assert not found & {"sqlalchemy", "starlette"}
    assert {name for name in found if name.startswith("service.commands.")} == {"service.commands.loader"}


def test_the_help_of_a_command_executes_nothing_that_opens_a_store() -> None:
    found = imported(*(f"{name} --help" for name in NAMES))

    assert "service.commands.status" in found
    assert not found & EXECUTED_WITH_STORES


def test_a_command_that_runs_is_imported_like_any_module(tmp_path: Path) -> None:
    script = "import sys; from service.cli import app; app(['status'], standalone_mode=False)"
    check = "; print(type(sys.modules['service.bootstrap']).__name__, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", script + check],
        env={**os.environ, "DAYBOOK_DATA_DIR": str(tmp_path / "none")},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ran.stderr.splitlines()[-1] == "module"  # not one that waits for its first use


@pytest.mark.parametrize("name", NAMES)
def test_a_command_of_the_table_loads_and_shows_its_help(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})

    assert shown.exit_code == 0
    assert f" {name} [OPTIONS]" in shown.output
    assert LISTED[name] in shown.output


@pytest.mark.parametrize("name", NAMES)
def test_the_list_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    assert find_command(name).help.splitlines()[0] == LISTED[name]


def test_the_list_shows_every_command_in_its_group_but_for_hidden_ones() -> None:
    lines = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.splitlines()

    groups = [line.split()[1] for line in lines if line.startswith("╭─")]
    first_words = [line.split()[1] for line in lines if line.startswith("│ ") and line[2].isalpha()]

    assert groups == ["Options", *(group.split()[0] for group in COMMANDS if group)]
    assert first_words == [name for name in NAMES if name != "valkey"]


@pytest.mark.parametrize(("name", "command"), each_command().items())
def test_an_example_of_a_command_can_be_typed(name: str, command: object) -> None:
    given = examples(command)

    assert given
    for words in given:
        assert " ".join(words).startswith(name)
        assert parse(words).callback.__name__ == command.callback.__name__  # type: ignore[attr-defined]


def test_a_word_that_is_no_command_is_refused_with_the_one_that_is_like_it() -> None:
    refused = CliRunner().invoke(app, ["explin"])

    assert refused.exit_code == 2
    assert "Did you mean 'explain'?" in refused.output


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])

    assert (shown.exit_code, shown.output) == (0, f"daybook {version('daybook')}\n")


@pytest.mark.parametrize("command", ["run", "web"])
@pytest.mark.parametrize(
    ("option", "value", "held"),
    [("port", "70000", "'70000'"), ("port", "many", "'many'"), ("host", "0.0.0.0", "'0.0.0.0'")],
)
def test_a_wrong_option_is_named_in_one_line_as_the_setting_is(
    command: str, option: str, value: str, held: str, tmp_path: Path
) -> None:
    place = {"DAYBOOK_DATA_DIR": str(tmp_path)}
    by_option = CliRunner().invoke(app, [command, f"--{option}", value], env=place)
    by_setting = CliRunner().invoke(app, [command], env=place | {f"DAYBOOK_{option.upper()}": value})

    assert (by_option.exit_code, by_option.stdout) == (2, "")
    assert by_option.stderr.startswith(f"daybook: --{option} holds {held}; it may hold: ")
    assert by_option.stderr.count("\n") == 1
    assert by_setting.stderr == by_option.stderr.replace(f"--{option}", f"DAYBOOK_{option.upper()}")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("daybook re", {"reconcile", "retranslate", "rebuild", "restore"}),
        ("daybook import ", {"stripe", "mxmerchant", "csv", "ledger"}),
        ("daybook export rows --f", {"--format"}),
        ("daybook export rows --format ", {"csv", "parquet"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(words: str, offered: set[str]) -> None:
    asked = {
        "_DAYBOOK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    completed = subprocess.run(
        [sys.executable, "-c", "from service.cli import app; app(prog_name='daybook')"],
        env={**os.environ, **asked},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert set(completed.stdout.split()) == offered


def test_the_procfile_names_the_processes_that_run_starts() -> None:
    procfile = (Path(__file__).parents[2] / "Procfile").read_text().splitlines()

    assert procfile == [f"{name}: daybook {name}" for name in PROCESSES]
