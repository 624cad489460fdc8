"""Databases with an empty ledger and empty books, as a first start leaves them."""

from service.settings import load
from service.stores import prepare
from tests.postgres import PostgresServer

_TEMPLATE = "empty_daybook"


def prepared_database(server: PostgresServer) -> str:
    """The URL of a new one: a copy of a prepared one, since migrating takes far longer."""
    if server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{_TEMPLATE}'") != "1":
        server.sql(f"CREATE DATABASE {_TEMPLATE}")
        prepare(load(database_url=server.url(_TEMPLATE)))
    return server.new_database(_TEMPLATE)
