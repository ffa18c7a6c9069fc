"""Alembic's entry: migrations run on the connection that `app.store.migrate` hands over.

Each has a transaction of its own, so that one may leave it (`autocommit_block`) to build an index
concurrently.
"""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=None,
    transactional_ddl=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
