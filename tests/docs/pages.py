"""The links and the headings of a page in Markdown."""

import re
from pathlib import Path


def links(page: Path) -> list[tuple[str, str]]:
    """The path and the anchor of every link of a page to another page, or to itself."""
    return re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
