"""Pipelines and namespaces come and go."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.landing import ListZones
from contracts.messages import derived_id, utc_now
from contracts.names import Qualified
from contracts.namespaces import DEFAULT_NAMESPACE, DeleteNamespace
from contracts.pipelines import CreatePipeline, NamespaceRemoved, PipelineCreated, PipelineRemoved
from services.catalog.code import domain, drafts
from services.catalog.code.store import namespaces, pipelines
from services.catalog.code.store.pipelines import KeptPipeline
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.errors import AlreadyExists, Conflict, Forbidden, NotFound
from shared.object_store import ObjectStore
from shared.outbox import emit

OnRemoved = Callable[[Connection, UUID], Awaitable[None]]
"""What else belongs to the removal of a pipeline, in the same transaction; its row is locked."""


async def create_pipeline(db: asyncpg.Pool, objects: ObjectStore, query: CreatePipeline) -> PipelineCreated:
    """Record a pipeline and write its starter files, but for those that somebody has put there already."""
    domain.check_name(query.name)
    name = Qualified(query.namespace, query.layer, query.name)
    async with transaction(db) as connection:
        if not await namespaces.keep_from_deletion(connection, query.namespace):
            raise NotFound(f"there is no namespace {query.namespace!r}")
        if await pipelines.create(connection, query, name.folder) is None:
            raise AlreadyExists(f"there is a pipeline {str(name)!r} already")
        await drafts.clear(connection, objects, name.folder)
        created = [
            file
            for file, text in domain.starter_files(name, query.type).items()
            if await drafts.put_new(objects, name.folder + file, text) is not None
        ]
    return PipelineCreated(
        namespace=name.namespace, layer=name.layer, name=name.name, s3_path=name.folder, files_created=created
    )


async def delete_pipeline(db: asyncpg.Pool, name: Qualified, on_removed: OnRemoved) -> None:
    """Delete a pipeline with all that belongs to it; its tables stay."""
    async with transaction(db) as connection:
        pipeline = await pipelines.lock(connection, name)
        if pipeline is None:
            raise NotFound(f"there is no pipeline {str(name)!r}")
        await _remove(connection, pipeline, on_removed, utc_now())


async def delete_namespace(db: asyncpg.Pool, bus: Bus, query: DeleteNamespace, on_removed: OnRemoved) -> None:
    """Delete a namespace, with its pipelines if that is wanted by force."""
    if query.name == DEFAULT_NAMESPACE:
        raise Forbidden(f"namespace {DEFAULT_NAMESPACE!r} cannot be deleted")
    if await namespaces.find(db, query.name) is None:
        raise NotFound(f"there is no namespace {query.name!r}")
    zones = 0 if query.force else (await bus.ask(ListZones(namespace=query.name, limit=1))).total
    now = utc_now()
    async with transaction(db) as connection:
        namespace_id = await namespaces.lock(connection, query.name)
        if namespace_id is None:
            raise NotFound(f"there is no namespace {query.name!r}")
        held = await pipelines.lock_namespace(connection, query.name)
        if not query.force and (held or zones):
            raise Conflict(
                f"namespace {query.name!r} holds {len(held)} pipelines and {zones} landing zones: force deletes them",
                details={"pipelines": len(held), "landing_zones": zones},
            )
        for pipeline in held:
            await _remove(connection, pipeline, on_removed, now)
        await namespaces.delete(connection, query.name)
        await emit(connection, NamespaceRemoved(occurred_at=now, namespace=query.name, namespace_id=namespace_id))


async def _remove(db: Connection, pipeline: KeptPipeline, on_removed: OnRemoved, now: datetime) -> None:
    """Delete a locked pipeline and say so; its draft is cleared away later."""
    await on_removed(db, pipeline.shown.id)
    await pipelines.delete(db, pipeline.shown.id, now)
    await emit(
        db,
        PipelineRemoved(
            event_id=derived_id("pipeline.removed", pipeline.shown.id),
            occurred_at=now,
            pipeline=str(pipeline.name),
            pipeline_id=pipeline.shown.id,
        ),
    )
