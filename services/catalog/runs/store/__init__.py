"""The SQL of runs."""

from typing import TypeAlias

import asyncpg

from shared.database import Connection

Executor: TypeAlias = Connection | asyncpg.Pool
"""Whatever a statement can be given to: a connection in a transaction, or the pool."""
