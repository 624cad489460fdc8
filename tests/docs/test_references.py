"""The pages name files, functions and pages that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import anchors, links
from tests.support.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(
    r"`((?:service|handlers|projections|tests|bench|docs)/[\w/.-]*(?:\.\w+|/))`(?:\s+\(([^)]+)\))?"
)
MAX_LINES_OF_A_DECISION = 250


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def source(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return "\n".join(file.read_text("utf-8") for file in files)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_links_to_pages_and_headings_that_exist(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text("utf-8")), anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_files_and_functions_that_exist(page: Path) -> None:
    for path, names in FILE.findall(page.read_text("utf-8")):
        assert (ROOT / path).exists(), path
        for name in re.findall(r"`(\w+(?:\.\w+)*)`", names):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", source(ROOT / path)), f"{name} in {path}"


def test_the_index_lists_every_page_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = [path for path, _ in links(folder / "README.md")]

    assert sorted(listed) == sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")


def test_a_page_of_decisions_can_be_read_in_one_sitting() -> None:
    for page in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(page.read_text("utf-8").splitlines()) <= MAX_LINES_OF_A_DECISION, page.name


def test_the_readme_links_to_every_page() -> None:
    listed = {(ROOT / path).resolve() for path, _ in links(ROOT / "README.md")}
    pages = [page for page in PAGES if page.parent in {ROOT, ROOT / "docs"} and page.name != "README.md"]

    assert not [name_of(page) for page in pages if page not in listed]
