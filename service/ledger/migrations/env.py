"""Alembic runs this module to migrate; `service.ledger.schema.migrate` passes the connection."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
