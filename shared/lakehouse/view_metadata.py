"""The metadata of a view as Iceberg's specification lays it out, written for the first time.

PyIceberg takes most of a second to import: only what writes views imports this module.
"""

from typing import Final
from uuid import uuid4

from pyiceberg.schema import Schema
from pyiceberg.typedef import Properties
from pyiceberg.view import View
from pyiceberg.view.metadata import ViewHistoryEntry, ViewMetadata, ViewVersion

from contracts.names import Qualified
from shared.lakehouse.files import TableFiles
from shared.lakehouse.port import ViewFile
from shared.lakehouse.views import DIALECT

_FORMAT: Final = 1


def version_of(view: Qualified, sql: str) -> ViewVersion:
    """The version of a view that is this query in DuckDB's SQL; it names tables and views in full."""
    return ViewVersion.model_validate(
        {
            "version-id": 1,
            "schema-id": 0,
            "default-namespace": [view.namespace, view.layer],
            "summary": {"engine-name": DIALECT},
            "representations": [{"type": "sql", "sql": sql, "dialect": DIALECT}],
        }
    )


def write_view(
    files: TableFiles, folder: str, name: Qualified, schema: Schema, version: ViewVersion, properties: Properties
) -> tuple[View, ViewFile]:
    """Write the metadata of a new view into its folder; with a pointer to it, the view is there."""
    metadata = ViewMetadata(
        view_uuid=str(uuid4()),
        format_version=_FORMAT,
        location=folder,
        schemas=[schema.model_copy(update={"schema_id": version.schema_id})],
        current_version_id=version.version_id,
        versions=[version],
        version_log=[ViewHistoryEntry(timestamp_ms=version.timestamp_ms, version_id=version.version_id)],
        properties=properties,
    )
    location = f"{folder}/metadata/00000-{uuid4()}.metadata.json"
    files.put_all({location: metadata.model_dump_json(by_alias=True, exclude_none=True).encode()})
    return View(tuple(name), metadata), ViewFile(location, version.version_id, version.schema_id)
