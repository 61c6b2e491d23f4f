"""The SQL of pipelines."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from contracts.names import Qualified
from contracts.pipelines import CreatePipeline, ListPipelines, Pipeline, UpdatePipeline
from shared.database import Connection

Executor: TypeAlias = Connection | asyncpg.Pool

_SHOWN = """
id, namespace, layer, name, type, s3_path, description, owner, published_at, published_versions, version, draft_dirty,
max_versions, created_at, updated_at
"""

_IS_NAMED = "namespace = $1 and layer = $2 and name = $3 and deleted_at is null"


@dataclass(frozen=True)
class KeptPipeline:
    """A pipeline, and how often its draft or its publication changed."""

    shown: Pipeline
    revision: int

    @property
    def name(self) -> Qualified:
        """Its name in full."""
        return Qualified(self.shown.namespace, self.shown.layer, self.shown.name)


async def find(db: Executor, name: Qualified) -> KeptPipeline | None:
    """The living pipeline of this name; None if there is none."""
    return _kept(await db.fetchrow(f"select {_SHOWN}, revision from pipelines where {_IS_NAMED}", *name))


async def lock(db: Connection, name: Qualified) -> KeptPipeline | None:
    """The living pipeline of this name, locked until the transaction ends; None if there is none."""
    return _kept(await db.fetchrow(f"select {_SHOWN}, revision from pipelines where {_IS_NAMED} for update", *name))


async def lock_namespace(db: Connection, namespace: str) -> list[KeptPipeline]:
    """The living pipelines of a namespace, locked until the transaction ends."""
    rows = await db.fetch(
        f"""
        select {_SHOWN}, revision
        from pipelines
        where namespace = $1 and deleted_at is null
        order by id
        for update
        """,
        namespace,
    )
    return [kept for row in rows if (kept := _kept(row))]


async def create(db: Connection, query: CreatePipeline, folder: str) -> UUID | None:
    """Record a pipeline; None if the name is taken."""
    created: UUID | None = await db.fetchval(
        """
        insert into pipelines (namespace, layer, name, type, s3_path, description, owner)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (namespace, layer, name) where deleted_at is null do nothing
        returning id
        """,
        query.namespace,
        query.layer,
        query.name,
        query.type,
        folder,
        query.description,
        query.owner or None,
    )
    return created


async def update(db: Executor, query: UpdatePipeline) -> KeptPipeline | None:
    """Change what is given of a pipeline; None if there is none of that name."""
    return _kept(
        await db.fetchrow(
            f"""
            update pipelines
            set description = coalesce($4, description),
              owner = case when $5::text is null then owner else nullif($5, '') end,
              max_versions = coalesce($6, max_versions),
              type = coalesce($7, type),
              updated_at = now()
            where {_IS_NAMED}
            returning {_SHOWN}, revision
            """,
            *Qualified.parse(query.pipeline),
            query.description,
            query.owner,
            query.max_versions,
            query.type,
        )
    )


async def delete(db: Connection, pipeline_id: UUID, now: datetime) -> None:
    """Mark a locked pipeline as deleted."""
    await db.execute("update pipelines set deleted_at = $2, updated_at = $2 where id = $1", pipeline_id, now)


# Drafts


async def note_edit(db: Connection, pipeline: KeptPipeline, now: datetime, *, draft_dirty: bool) -> bool:
    """Note what an edit made of the draft; False if the pipeline changed since it was found, or is gone."""
    changed = await db.fetchval(
        """
        update pipelines
        set draft_dirty = $3, revision = revision + 1, updated_at = $4
        where id = $1 and revision = $2 and deleted_at is null
        returning id
        """,
        pipeline.shown.id,
        pipeline.revision,
        draft_dirty,
        now,
    )
    return changed is not None


async def note_draft(db: Executor, pipeline: KeptPipeline, *, draft_dirty: bool) -> None:
    """Note what was seen of a draft, unless the pipeline changed since it was found."""
    await db.execute(
        "update pipelines set draft_dirty = $3 where id = $1 and revision = $2",
        pipeline.shown.id,
        pipeline.revision,
        draft_dirty,
    )


# Folders of deleted pipelines


async def lock_uncleared(db: Connection, folder: str) -> list[UUID]:
    """The deleted pipelines whose drafts may still lie in this folder, locked until the transaction ends."""
    rows = await db.fetch(
        """
        select id
        from pipelines
        where s3_path = $1 and deleted_at is not null and cleared_at is null
        order by id
        for update
        """,
        folder,
    )
    return [row["id"] for row in rows]


async def uncleared_folders(db: Executor) -> list[str]:
    """The folders in which drafts of deleted pipelines may still lie."""
    rows = await db.fetch(
        """
        select distinct s3_path
        from pipelines
        where deleted_at is not null and cleared_at is null
        order by s3_path
        limit 1000
        """
    )
    return [row["s3_path"] for row in rows]


async def note_cleared(db: Connection, pipeline_ids: list[UUID], now: datetime) -> None:
    """Note that nothing of these deleted pipelines is left in their folder."""
    await db.execute("update pipelines set cleared_at = $2 where id = any($1)", pipeline_ids, now)


# Lists

_ORDERS: Mapping[str, str] = {
    "name": "name, namespace, layer",
    "-name": "name desc, namespace desc, layer desc",
    "created_at": "created_at, id",
    "-created_at": "created_at desc, id",
    "updated_at": "updated_at, id",
    "-updated_at": "updated_at desc, id",
    "published_at": "published_at nulls last, id",
    "-published_at": "published_at desc nulls last, id",
}

_MATCHES = """
deleted_at is null
and ($1::text is null or namespace = $1)
and ($2::text is null or layer = $2)
and (
  $3::text is null
  or position(lower($3) in namespace || '.' || layer || '.' || name) > 0
  or position(lower($3) in lower(description)) > 0
)
"""


def _criteria(query: ListPipelines) -> tuple[Any, ...]:
    return query.namespace, query.layer, query.search


async def count(db: Executor, query: ListPipelines) -> int:
    """How many pipelines match."""
    total: int = await db.fetchval(f"select count(*) from pipelines where {_MATCHES}", *_criteria(query))
    return total


async def page(db: Executor, query: ListPipelines, *, start: int) -> list[Pipeline]:
    """Pipelines that match."""
    rows = await db.fetch(
        f"""
        select {_SHOWN}
        from pipelines
        where {_MATCHES}
        order by {_ORDERS[query.sort]}
        limit $4 offset $5
        """,
        *_criteria(query),
        query.limit,
        start,
    )
    return [Pipeline.model_validate(dict(row)) for row in rows]


async def folders(db: Executor, prefix: str) -> set[str]:
    """The folders of living pipelines that begin with this prefix, or the one that holds it."""
    rows = await db.fetch(
        """
        select s3_path
        from pipelines
        where deleted_at is null and (starts_with(s3_path, $1) or starts_with($1, s3_path))
        """,
        prefix,
    )
    return {row["s3_path"] for row in rows}


async def living_names(db: Connection) -> set[str]:
    """The names of all living pipelines."""
    rows = await db.fetch(
        """
        select namespace || '.' || layer || '.' || name as name
        from pipelines
        where deleted_at is null
        """
    )
    return {row["name"] for row in rows}


def _kept(row: asyncpg.Record | None) -> KeptPipeline | None:
    return KeptPipeline(Pipeline.model_validate(dict(row)), row["revision"]) if row else None
