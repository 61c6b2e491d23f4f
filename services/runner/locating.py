"""Where the tables are that a process of the pool asks for, and what the views stand for."""

import asyncio
import json
from collections.abc import Sequence

from contracts.names import Qualified
from services.runner.frames import Locations, StoredView
from shared.errors import Invalid
from shared.lakehouse.port import Lakehouse, Relation, RelationKind
from shared.lakehouse.views import query_of
from shared.object_store import ObjectStore


async def locate(lakehouse: Lakehouse, objects: ObjectStore, tables: Sequence[str], at: str) -> Locations:
    """Find tables and views by name at a reference."""
    found = await asyncio.gather(*(lakehouse.relation(Qualified.parse(name), at) for name in tables))
    relations = dict(zip(tables, found, strict=True))
    views = {name: one for name, one in relations.items() if one is not None and one.kind is RelationKind.VIEW}
    stored = await asyncio.gather(*(_stored(objects, name, view) for name, view in views.items()))
    return Locations(
        locations={
            name: one.location if one is not None and name not in views else None for name, one in relations.items()
        },
        views=dict(zip(views, stored, strict=True)),
    )


async def _stored(objects: ObjectStore, name: str, view: Relation) -> StoredView:
    key = view.location.removeprefix("s3://").partition("/")[2]
    query = query_of(json.loads(await objects.get(key)))
    if query is None:
        raise Invalid(f"view {name} was made by another engine, in an SQL that cannot be read here")
    return StoredView(location=view.location, query=query)
