"""Hot statements: the same parameters on each kind of database."""

import gc
import importlib
import pkgutil

import service
from service.books.tables import ROWS, STATEMENTS
from service.storage.statements import POSTGRESQL, HotStatement


def test_each_hot_statement_takes_its_parameters_in_one_order_on_both_databases():
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith(".migrations.env"):
            importlib.import_module(module.name)
    assert [STATEMENTS[row] for row in ROWS]  # made when they are first used
    gc.unfreeze()  # what is frozen is not listed
    statements = [found for found in gc.get_objects() if isinstance(found, HotStatement)]
    gc.freeze()
    assert len(statements) > 100
    for statement in statements:
        assert statement.parameters("sqlite") == statement.parameters(POSTGRESQL), statement.sql(POSTGRESQL)
