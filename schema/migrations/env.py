# ruff: noqa: INP001 -- Alembic loads this file by its path
"""How Alembic runs the migrations: on the connection that pipeline.db.migrate hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
