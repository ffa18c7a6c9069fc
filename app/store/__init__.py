"""The ledger: set-based functions over Postgres, one module per aggregate.

Nothing here commits: use cases own transactions. Functions take a `Connection` and lists, and are
named for what they do to the ledger. Locks are taken in one order: intents, then deliveries, each
by id.
"""
