"""Databases with an empty ledger and empty books, as a first start leaves them."""

from projections.book import Rules
from service.bootstrap import books_schema, prepare
from service.settings import Settings, load
from tests.support.postgres import PostgresServer


def prepared_database(server: PostgresServer, rules: Rules | None = None) -> str:
    """The URL of a new one, for books under these rules; a copy, since preparing one takes longer."""
    settings = under(load(), rules or Rules())
    template = books_schema(settings).replace("daybook_books", "empty")
    if server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{template}'") != "1":
        server.sql(f"CREATE DATABASE {template}")
        prepare(settings.model_copy(update={"database_url": server.url(template)}))
    return server.new_database(template)


def under(settings: Settings, rules: Rules) -> Settings:
    """The settings with other rules."""
    asked = {"reporting_tz": rules.reporting_tz, "weeks_per_month": rules.weeks_per_month}
    return settings.model_copy(update=asked)
