"""Stores with an empty ledger and empty books, as a first start leaves them."""

import atexit
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from projections.book import Rules
from service.bootstrap import books_schema, prepare
from service.settings import Settings, load
from tests.support.postgres import PostgresServer

EACH_STORE = ["sqlite", "postgresql"]

NewDataDir = Callable[[Path], Path]


@cache
def empty_data_dir() -> Path:
    """A data directory with both files. Tests take copies, since migrating takes far longer than a copy."""
    directory = Path(mkdtemp(prefix="daybook-empty-"))
    atexit.register(shutil.rmtree, directory)
    prepare(settings_of(directory))
    return directory


def new_data_dir(directory: Path, server: PostgresServer | None = None) -> Path:
    """Make an empty Daybook's directory; with a server, one that names a new database there."""
    if server is None:
        return Path(shutil.copytree(empty_data_dir(), directory))
    directory.mkdir(parents=True)
    (directory / "database_url").write_text(prepared_database(server))
    return directory


def settings_of(data_dir: Path, **given: Any) -> Settings:
    """Settings of a data directory, and of the database that it names; no `.env` is read."""
    url = data_dir / "database_url"
    stores = {"data_dir": data_dir, "database_url": url.read_text() if url.exists() else None}
    stores |= {name: given.pop(name) for name in stores.keys() & given.keys()}
    environment = frozenset(each for each in os.environ.items() if each[0].startswith("DAYBOOK_"))
    return _loaded(environment, tuple(given.items())).model_copy(update=stores)


@cache
def _loaded(_environment: frozenset[tuple[str, str]], given: tuple[tuple[str, Any], ...]) -> Settings:
    """The settings but for where the stores are: to load them takes longer than to make an app of them."""
    return load(_env_file=None, **dict(given))


def prepared_database(server: PostgresServer, rules: Rules | None = None) -> str:
    """The URL of a new database, for books under these rules; a copy, since preparing one takes longer."""
    rules = rules or Rules()
    if rules not in server.templates:
        settings = with_rules(load(), rules)
        template = books_schema(settings).replace("daybook_books", "empty")
        server.sql(f"CREATE DATABASE {template}")
        prepare(settings.model_copy(update={"database_url": server.url(template)}))
        server.templates[rules] = template
    return server.new_database(server.templates[rules])


def with_rules(settings: Settings, rules: Rules) -> Settings:
    """The settings with other rules."""
    changed = {"reporting_tz": rules.reporting_tz, "weeks_per_month": rules.weeks_per_month}
    return settings.model_copy(update=changed)
