"""The SQL of what is said about tables."""

from collections.abc import Sequence

import asyncpg

from contracts.names import Qualified
from contracts.tables import DocumentTable, TableDocs, TableSummary

_SAID = """
namespace || '.' || layer || '.' || name as table, description, owner, column_descriptions, updated_at
"""


async def document(db: asyncpg.Pool, query: DocumentTable) -> TableDocs:
    """Keep what is given about a table, and leave the rest."""
    row = await db.fetchrow(
        f"""
        insert into table_metadata (namespace, layer, name, description, owner, column_descriptions)
        values ($1, $2, $3, coalesce($4, ''), nullif($5, ''), coalesce($6, '{{}}'::jsonb))
        on conflict (namespace, layer, name) do update
        set description = coalesce($4, table_metadata.description),
          owner = case when $5::text is null then table_metadata.owner else nullif($5, '') end,
          column_descriptions = coalesce($6, table_metadata.column_descriptions),
          updated_at = now()
        returning {_SAID}
        """,
        *Qualified.parse(query.table),
        query.description,
        query.owner,
        query.column_descriptions,
    )
    assert row is not None, "it was inserted or updated"
    return TableDocs.model_validate(dict(row))


async def docs(db: asyncpg.Pool, table: Qualified) -> TableDocs | None:
    """What is said about a table; None if nothing ever was."""
    row = await db.fetchrow(
        f"select {_SAID} from table_metadata where namespace = $1 and layer = $2 and name = $3", *table
    )
    return TableDocs.model_validate(dict(row)) if row else None


async def summaries(db: asyncpg.Pool, tables: Sequence[str]) -> list[TableSummary]:
    """What is said about these tables in short."""
    names = [Qualified.parse(table) for table in tables]
    rows = await db.fetch(
        """
        select namespace || '.' || layer || '.' || name as table, description, owner
        from table_metadata
        where (namespace, layer, name) in (
          select namespace, layer, name
          from unnest($1::text[], $2::text[], $3::text[]) as wanted (namespace, layer, name)
        )
        order by namespace, layer, name
        """,
        [name.namespace for name in names],
        [name.layer for name in names],
        [name.name for name in names],
    )
    return [TableSummary.model_validate(dict(row)) for row in rows]
