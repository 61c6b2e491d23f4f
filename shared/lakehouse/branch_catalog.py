"""A branch of any lakehouse as a PyIceberg catalog."""

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol, TypeVar

import pyarrow as pa
from pyiceberg.catalog import Catalog, MetastoreCatalog, PropertiesUpdateSummary
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    NoSuchViewError,
    TableAlreadyExistsError,
    ViewAlreadyExistsError,
)
from pyiceberg.io import FileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table, TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import AddSnapshotUpdate, RemoveSnapshotsUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from pyiceberg.view import View
from pyiceberg.view.metadata import ViewMetadata, ViewVersion

from contracts.names import Qualified
from shared.errors import Conflict, Unavailable
from shared.lakehouse.files import TableFiles, new_folder
from shared.lakehouse.port import MAIN, BranchClosed, MetadataFile, Relation, RelationKind, ViewFile
from shared.lakehouse.view_metadata import write_view

T = TypeVar("T")

SNAPSHOTS_KEPT = 20
"""Iceberg snapshots in a table's metadata; its history is the log of merges, so older ones are only ballast."""


class Pointers(Protocol):
    """Who knows where tables are on branches, and moves them there: a lakehouse, or whoever asks one."""

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for at a reference; None where it stands for nothing."""

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Say which tables and views there are at a reference."""

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move a table or view on a branch from one metadata file to the next."""

    async def namespaces(self) -> set[str]:
        """List the namespaces of tables."""

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Make sure that tables can be created in `namespace.layer`."""


class Portal(Protocol):
    """How to call what is asynchronous from here: by the event loop of another thread, or without one."""

    def call(self, ask: Callable[..., Coroutine[Any, Any, T]], /, *arguments: Any) -> T:
        """Call and wait."""


class BranchCatalog(MetastoreCatalog):
    """Tables and views as a branch sees them; what it changes is seen on this branch only, until it is merged.

    Identifiers are `namespace.layer.name`. Creating a table gives it a location of its own: two branches may create
    the same name.
    """

    def __init__(self, branch: str, lakehouse: Pointers, portal: Portal, files: TableFiles, bucket: str) -> None:
        super().__init__(branch)
        self.files = files
        self._branch = branch
        self._lakehouse = lakehouse
        self._portal = portal
        self._bucket = bucket

    def new_folder(self, table: Qualified) -> str:
        """A location for a table that is created."""
        return new_folder(self._bucket, table)

    def table_at(self, name: Qualified, location: str) -> Table:
        """Load a table whose metadata is known to be there."""
        return self._table(name, FromInputFile.table_metadata(self.files.new_input(location)), location)

    def move(self, name: Qualified, expected: str | None, new: MetadataFile | ViewFile | None) -> None:
        """Move the pointer of a table or view on the branch from one metadata file to the next, which is in the store.

        None stands for one that does not exist. `CommitFailedException` when somebody else has moved it;
        `Unavailable` leaves open whether it was moved, and the branch is then to be given up.
        """
        try:
            self._portal.call(self._lakehouse.commit, self._branch, name, expected, new)
        except BranchClosed:
            raise
        except Conflict as error:
            raise CommitFailedException(error.message) from error
        except Unavailable:
            # The answer is lost, not necessarily the move; no other is to the same place.
            found = self.relation(name)
            if (found.location if found else None) != (new.location if new else None):
                raise

    def relation(self, name: Qualified) -> Relation | None:
        """What a name stands for on the branch; None where it stands for nothing."""
        return self._portal.call(self._lakehouse.relation, name, self._branch)

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        """Create an empty table; use `create_table_transaction` to create and fill it in one commit."""
        staged = self._create_staged_table(identifier, schema, location, partition_spec, sort_order, properties)
        self._write_metadata(staged.metadata, self.files, staged.metadata_location)
        self._create(_name(staged.name()), staged.metadata_location, staged.metadata)
        return self._table(staged.name(), staged.metadata, staged.metadata_location)

    def register_table(
        self,
        identifier: str | Identifier,
        metadata_location: str,
        overwrite: bool = False,
    ) -> Table:
        """Put a table that exists in the bucket on this branch."""
        if overwrite:
            raise NotImplementedError("drop the table first")
        table = self.table_at(_name(identifier), metadata_location)
        self._create(_name(identifier), metadata_location, table.metadata)
        return table

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load a table as the branch sees it."""
        name = _name(identifier)
        found = self.relation(name)
        if found is None or found.kind is not RelationKind.TABLE:
            raise NoSuchTableError(f"no table {str(name)!r} on {self._branch!r}")
        return self.table_at(name, found.location)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Write new metadata and move the branch's pointer to it, unless somebody else has moved it meanwhile."""
        name = _name(table.name())
        # Whether somebody has moved the table since it was loaded is seen when the pointer is moved.
        current = None if isinstance(table, StagedTable) else table
        if current is not None:
            updates += _expiry(current.metadata, updates)
        staged = self._update_and_stage_table(current, name, requirements, updates)
        if current is not None and staged.metadata == current.metadata:
            return CommitTableResponse(metadata=current.metadata, metadata_location=current.metadata_location)
        self._write_metadata(staged.metadata, self.files, staged.metadata_location)
        if current is None:
            self._create(name, staged.metadata_location, staged.metadata)
        else:
            self.move(name, current.metadata_location, metadata_file(staged.metadata_location, staged.metadata))
        return CommitTableResponse(metadata=staged.metadata, metadata_location=staged.metadata_location)

    def drop_table(self, identifier: str | Identifier) -> None:
        """Take a table off the branch; its files stay, other branches may need them."""
        current = self.load_table(identifier)
        self.move(_name(identifier), current.metadata_location, None)

    def purge_table(self, identifier: str | Identifier) -> None:
        """Refuse: files are collected when no branch and no entry of the log needs them any more."""
        _refuse("purging a table")

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        """List the tables of a namespace, as the branch sees them."""
        return self._names_in(namespace, RelationKind.TABLE)

    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """Make a namespace `namespace.layer`, on every branch that is made from now on."""
        levels = self.identifier_to_tuple(namespace)
        if self.namespace_exists(levels):
            raise NamespaceAlreadyExistsError(f"namespace {'.'.join(levels)!r} exists")
        if len(levels) != len(Qualified._fields) - 1:
            _refuse(f"a namespace that is not `namespace.layer`, as {'.'.join(levels)!r},")
        self._portal.call(self._lakehouse.ensure_namespace, levels[0], levels[1])

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """List the namespaces right under one, or at the top."""
        parent = self.identifier_to_tuple(namespace)
        names = [tuple(name.split(".")) for name in self._portal.call(self._lakehouse.namespaces)]
        return sorted(name for name in names if name[:-1] == parent)

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """Look whether a namespace exists; none has properties."""
        name = ".".join(self.identifier_to_tuple(namespace))
        if name not in self._portal.call(self._lakehouse.namespaces):
            raise NoSuchNamespaceError(f"no namespace {name!r}")
        return {}

    def drop_namespace(self, namespace: str | Identifier) -> None:
        """Refuse: a namespace without tables costs nothing."""
        _refuse("dropping a namespace")

    def update_namespace_properties(
        self, namespace: str | Identifier, removals: set[str] | None = None, updates: Properties = EMPTY_DICT
    ) -> PropertiesUpdateSummary:
        """Refuse: a namespace has no properties."""
        _refuse("properties of a namespace")

    def rename_table(self, from_identifier: str | Identifier, to_identifier: str | Identifier) -> Table:
        """Refuse: a table belongs to the pipeline of its name."""
        _refuse("renaming a table")

    def create_view(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        view_version: ViewVersion,
        location: str | None = None,
        properties: Properties = EMPTY_DICT,
    ) -> View:
        """Create a view, where there is neither a table nor a view of that name."""
        name = _name(identifier)
        if not self.namespace_exists(name[:-1]):
            raise NoSuchNamespaceError(f"no namespace {'.'.join(name[:-1])!r}")
        folder = (location or self.new_folder(name)).rstrip("/")
        columns = self._convert_schema_if_needed(schema)
        view, file = write_view(self.files, folder, name, columns, view_version, properties)
        try:
            self.move(name, None, file)
        except CommitFailedException as error:
            raise ViewAlreadyExistsError(str(error)) from error
        return view

    def load_view(self, identifier: str | Identifier) -> View:
        """Load a view as the branch sees it."""
        name = _name(identifier)
        with self.files.new_input(self._view(name).location).open() as stream:
            return View(tuple(name), ViewMetadata.model_validate_json(stream.read()))

    def view_exists(self, identifier: str | Identifier) -> bool:
        """Whether the branch sees a view of that name."""
        try:
            self._view(_name(identifier))
        except NoSuchViewError:
            return False
        return True

    def drop_view(self, identifier: str | Identifier) -> None:
        """Take a view off the branch; its file stays, other branches may need it."""
        name = _name(identifier)
        self.move(name, self._view(name).location, None)

    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        """List the views of a namespace, as the branch sees them."""
        return self._names_in(namespace, RelationKind.VIEW)

    def register_view(self, identifier: str | Identifier, metadata_location: str) -> View:
        """Refuse: a view is created."""
        _refuse("registering a view")

    def _create_staged_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> StagedTable:
        # PyIceberg's own takes one level of namespaces only.
        name = _name(identifier)
        if not self.namespace_exists(name[:-1]):
            raise NoSuchNamespaceError(f"no namespace {'.'.join(name[:-1])!r}")
        properties = {TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: str(SNAPSHOTS_KEPT), **properties}
        metadata = new_table_metadata(
            location=(location or new_folder(self._bucket, name)).rstrip("/"),
            schema=self._convert_schema_if_needed(schema),
            partition_spec=partition_spec,
            sort_order=sort_order,
            properties=properties,
        )
        metadata_location = load_location_provider(metadata.location, properties).new_table_metadata_file_location()
        return StagedTable(
            identifier=name,
            metadata=metadata,
            metadata_location=metadata_location,
            io=self.files,
            catalog=self,
        )

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return self.files

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Keep it, whatever the table's properties say: main and other branches may point to it."""

    def _table(self, identifier: Identifier, metadata: TableMetadata, location: str) -> Table:
        return Table(
            identifier=tuple(identifier),
            metadata=metadata,
            metadata_location=location,
            io=self.files,
            catalog=self,
        )

    def _view(self, name: Qualified) -> Relation:
        found = self.relation(name)
        if found is None or found.kind is not RelationKind.VIEW:
            raise NoSuchViewError(f"no view {str(name)!r} on {self._branch!r}")
        return found

    def _names_in(self, namespace: str | Identifier, kind: RelationKind) -> list[Identifier]:
        levels = self.identifier_to_tuple(namespace)
        relations = self._portal.call(self._lakehouse.relations, self._branch)
        return [tuple(name) for name, found in relations.items() if found.kind is kind and tuple(name[:-1]) == levels]

    def _create(self, name: Qualified, location: str, metadata: TableMetadata) -> None:
        try:
            self.move(name, None, metadata_file(location, metadata))
        except CommitFailedException as error:
            raise TableAlreadyExistsError(str(error)) from error


def metadata_file(location: str, metadata: TableMetadata) -> MetadataFile:
    """What is said of a metadata file where a pointer is moved to it."""
    return MetadataFile(
        location=location,
        snapshot_id=metadata.current_snapshot_id,
        schema_id=metadata.current_schema_id,
        spec_id=metadata.default_spec_id,
        sort_order_id=metadata.default_sort_order_id,
    )


def _name(identifier: str | Identifier) -> Qualified:
    levels = Catalog.identifier_to_tuple(identifier)
    try:
        return Qualified.parse(".".join(levels))
    except ValueError as error:
        raise NoSuchTableError(str(error)) from error


def _expiry(metadata: TableMetadata, updates: tuple[TableUpdate, ...]) -> tuple[TableUpdate, ...]:
    """Drop the oldest snapshots from the metadata as part of a commit that adds new ones."""
    added = sum(isinstance(update, AddSnapshotUpdate) for update in updates)
    referenced = {reference.snapshot_id for reference in metadata.refs.values()}
    surplus = len(metadata.snapshots) + added - SNAPSHOTS_KEPT
    if added == 0 or surplus <= 0:
        return ()
    oldest = sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)[:surplus]
    ids = [snapshot.snapshot_id for snapshot in oldest if snapshot.snapshot_id not in referenced]
    return (RemoveSnapshotsUpdate(snapshot_ids=ids),) if ids else ()


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"{what} is not supported by the lakehouse")
