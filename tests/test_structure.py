"""The floors of the house: every module stands on one, so that the import rules hold for all of them."""

import tomllib
from pkgutil import walk_packages

import handlers
import projections
import service
from tests.support.paths import ROOT


def floors() -> list[str]:
    """The modules that the layers contract of `pyproject.toml` names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [room for layer in layers for room in layer.split(" | ")]


def modules() -> set[str]:
    return {
        found.name
        for package in (service, handlers, projections)
        for found in walk_packages(package.__path__, f"{package.__name__}.")
    }


def test_every_module_stands_on_a_floor() -> None:
    rooms = floors()
    homeless = {m for m in modules() if not any(m == room or m.startswith(f"{room}.") for room in rooms)}
    assert homeless == set()


def test_every_floor_is_there() -> None:
    assert {room for room in floors() if room not in {*modules(), "handlers", "projections"}} == set()


def test_few_modules_lie_loose() -> None:
    loose = [path.name for path in (ROOT / "service").glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= 8


def test_every_folder_of_tests_is_named_as_what_it_tests() -> None:
    rooms = {room.rpartition(".")[2] for room in floors()}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert folders - rooms <= {"attacks", "bench", "docs", "storm"}
