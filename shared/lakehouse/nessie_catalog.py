"""A branch of Nessie's as a PyIceberg catalog, through its Iceberg REST endpoint."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import pyarrow as pa
import requests
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import DEFAULT_ENDPOINTS, Capability, RestCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    NoSuchViewError,
    TableAlreadyExistsError,
    ViewAlreadyExistsError,
)
from pyiceberg.io import FileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, CreateTableTransaction, StagedTable, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import AddSchemaUpdate, AddSnapshotUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from pyiceberg.view import View
from pyiceberg.view.metadata import ViewMetadata, ViewVersion

from contracts.names import Qualified
from shared.errors import Forbidden, Internal, NotFound, Unavailable
from shared.lakehouse.files import TableFiles, new_folder
from shared.lakehouse.nessie_names import WAREHOUSE, closed_name, merged_name
from shared.lakehouse.nessie_schema import counted_depth_first
from shared.lakehouse.port import BranchClosed
from shared.lakehouse.view_metadata import write_view

T = TypeVar("T")

_TIMEOUT: Final = (5.0, 60.0)
"""Seconds to connect, and to answer: a commit hangs for 17 s when the object store is away."""

_VIEW: Final = "ICEBERG_VIEW"
"""What Nessie calls the content of a view."""
_NO_NAMESPACE: Final = re.compile(r"namespace '.*' must exist")
_NOT_ALLOWED: Final = "is not allowed for role"
"""What a refusal says that comes as a failure (500)."""


class NessieCatalog(RestCatalog):
    """Tables and views as a branch sees them; what it changes is seen on this branch only, until it is merged.

    Identifiers are `namespace.layer.name`. Creating a table gives it a location of its own: two branches may create
    the same name. A branch that was closed is read under the name that it goes on as.
    """

    def __init__(self, branch: str, connections: "Connections", files: TableFiles, bucket: str) -> None:
        self._branch = branch
        self._connections = connections
        self._files = files
        self._bucket = bucket
        super().__init__(branch, uri=connections.iceberg, prefix=_prefix(branch))

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
        transaction = self.create_table_transaction(
            identifier, schema, location, partition_spec, sort_order, properties
        )
        try:
            return transaction.commit_transaction()
        except CommitFailedException as error:
            raise TableAlreadyExistsError(str(error)) from error

    def create_table_transaction(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> CreateTableTransaction:
        """Create a table with what is written in the transaction, in one commit.

        Nessie would choose a folder beside the table's own; it takes ours with the commit.
        """
        name = _name(identifier)
        metadata = counted_depth_first(
            new_table_metadata(
                location=location or new_folder(self._bucket, name),
                schema=self._convert_schema_if_needed(schema),
                partition_spec=partition_spec,
                sort_order=sort_order,
                properties=properties,
            )
        )
        return CreateTableTransaction(
            StagedTable(
                identifier=tuple(name),
                metadata=metadata,
                metadata_location=f"{metadata.location}/metadata/none",
                io=self._files,
                catalog=self,
            )
        )

    def register_table(self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False) -> Table:
        """Put a table that exists in the bucket on this branch."""
        if overwrite:
            raise NotImplementedError("drop the table first")
        _name(identifier)
        self._files.settle()
        with self._writing():
            table: Table = super().register_table(identifier, metadata_location)
        return table

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load a table as the branch sees it."""
        _name(identifier)
        table: Table = self._reading(super().load_table, identifier)
        return table

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Change a table on the branch; an answer that leaves open whether it was changed is resolved by a look."""
        self._files.settle()
        try:
            with self._writing():
                answer: CommitTableResponse = super().commit_table(table, requirements, updates)
        except CommitFailedException as error:
            if _NO_NAMESPACE.search(str(error)):
                raise NoSuchNamespaceError(str(error)) from error
            raise
        except Unavailable:
            found = self._find_commit(table.name(), updates)
            if found is None:
                raise
            answer = found
        _check_columns(updates, answer)
        if answer.metadata_location.startswith("s3://"):
            return answer
        # Right after a commit the location is an address of Nessie's, which no other engine can read.
        loaded = self.load_table(table.name())
        return CommitTableResponse(metadata=loaded.metadata, metadata_location=loaded.metadata_location)

    def table_exists(self, identifier: str | Identifier) -> bool:
        """Whether the branch sees a table of that name."""
        try:
            self.load_table(identifier)
        except NoSuchTableError:
            return False
        return True

    def drop_table(self, identifier: str | Identifier, purge_requested: bool = False) -> None:
        """Take a table off the branch; its files stay, other branches may need them."""
        if purge_requested:
            raise NotImplementedError(
                "files are collected when no branch and no entry of the log needs them any more: a table is not purged"
            )
        _name(identifier)
        with self._writing():
            super().drop_table(identifier)

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        """List the tables of a namespace, as the branch sees them."""
        tables: list[Identifier] = self._reading(super().list_tables, namespace)
        return tables

    def create_view(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        view_version: ViewVersion,
        location: str | None = None,
        properties: Properties = EMPTY_DICT,
    ) -> View:
        """Create a view, where there is neither a table nor a view of that name.

        Nessie's Iceberg endpoint would choose a folder beside the view's own, so its file and its commit are ours.
        """
        name = _name(identifier)
        view, written = write_view(
            self._files,
            self._bucket,
            name,
            self._convert_schema_if_needed(schema),
            view_version,
            location=location,
            properties=properties,
        )
        self._files.settle()
        content = {
            "type": _VIEW,
            "metadataLocation": written,
            "versionId": view_version.version_id,
            "schemaId": view_version.schema_id,
        }
        with self._writing():
            head = self._connections.newest_commit(self._branch)
            if self._connections.content(self._branch, name) is not None:
                raise ViewAlreadyExistsError(f"there is a table or a view {str(name)!r} on {self._branch!r}")
            self._connections.commit(self._branch, head, f"create {name}", name, {"type": "PUT", "content": content})
        return view

    def load_view(self, identifier: str | Identifier) -> View:
        """Load a view as the branch sees it."""
        name = _name(identifier)
        location = self._view_location(name)
        if location is None:
            raise NoSuchViewError(f"no view {str(name)!r} on {self._branch!r}")
        with self._files.new_input(location).open() as stream:
            return View(tuple(name), ViewMetadata.model_validate_json(stream.read()))

    def view_exists(self, identifier: str | Identifier) -> bool:
        """Whether the branch sees a view of that name."""
        return self._view_location(_name(identifier)) is not None

    def drop_view(self, identifier: str | Identifier) -> None:
        """Take a view off the branch; its file stays, other branches may need it."""
        name = _name(identifier)
        with self._writing():
            head = self._connections.newest_commit(self._branch)
            if self._view_location(name) is None:
                raise NoSuchViewError(f"no view {str(name)!r} on {self._branch!r}")
            self._connections.commit(self._branch, head, f"drop {name}", name, {"type": "DELETE"})

    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        """List the views of a namespace, as the branch sees them."""
        views: list[Identifier] = self._reading(super().list_views, namespace)
        return views

    def register_view(self, identifier: str | Identifier, metadata_location: str) -> View:
        """Refuse: a view is created."""
        raise NotImplementedError("registering a view is not supported by the lakehouse")

    def _view_location(self, name: Qualified) -> str | None:
        for branch in (self._branch, closed_name(self._branch), merged_name(self._branch)):
            try:
                content = self._connections.content(branch, name)
            except _NoBranch:
                continue
            return str(content["metadataLocation"]) if content is not None and content["type"] == _VIEW else None
        raise NotFound(f"no branch {self._branch!r}")

    def _find_commit(
        self, identifier: str | Identifier, updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse | None:
        """The table, if its newest snapshot is one of this commit's."""
        made = {update.snapshot.snapshot_id for update in updates if isinstance(update, AddSnapshotUpdate)}
        try:
            loaded = self.load_table(identifier)
        except NoSuchTableError:
            return None
        if loaded.metadata.current_snapshot_id not in made:
            return None
        return CommitTableResponse(metadata=loaded.metadata, metadata_location=loaded.metadata_location)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except _NoBranch as error:
            raise self._gone() from error

    def _reading(self, read: Callable[[str | Identifier], T], identifier: str | Identifier) -> T:
        try:
            return read(identifier)
        except _NoBranch:
            pass
        open_prefix = self.properties["prefix"]
        try:
            for name in (closed_name(self._branch), merged_name(self._branch)):
                self.properties["prefix"] = _prefix(name)
                try:
                    return read(identifier)
                except _NoBranch:
                    continue
        finally:
            self.properties["prefix"] = open_prefix
        raise NotFound(f"no branch {self._branch!r}")

    def _gone(self) -> BranchClosed | NotFound:
        if any(self._connections.has_branch(name(self._branch)) for name in (closed_name, merged_name)):
            return BranchClosed(f"branch {self._branch!r} is closed")
        return NotFound(f"no branch {self._branch!r}")

    # What PyIceberg's own would ask Nessie for, or make anew for each table.

    def _fetch_config(self) -> None:
        self._supported_endpoints = {*DEFAULT_ENDPOINTS, Capability.V1_LIST_VIEWS}
        self._namespace_separator = "\x1f"

    def _create_session(self) -> requests.Session:
        return self._connections

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return self._files


class Connections(requests.Session):
    """The connections of a process to Nessie, as a role.

    `Unavailable` when there is no answer, or one that leaves open what was done (5xx); `Forbidden` when the role may
    not. Other refusals are answers, which PyIceberg understands.
    """

    def __init__(self, url: str, token: str, *, ca_file: str | None = None) -> None:
        super().__init__()
        if ca_file is not None:
            self.verify = ca_file
        self.iceberg = f"{url.rstrip('/')}/iceberg"
        self._trees = f"{url.rstrip('/')}/api/v2/trees"
        self.trust_env = False
        self.headers.update({"Authorization": f"Bearer {token}", "Content-Type": "application/json"})

    def has_branch(self, name: str) -> bool:
        """Whether there is a branch of this name."""
        return self.get(f"{self._trees}/{quote(name, safe='')}", params={}).status_code == requests.codes.ok

    def newest_commit(self, branch: str) -> str:
        """The newest commit of a branch."""
        head: str = self._answer(self.get(f"{self._trees}/{quote(branch, safe='')}"))["reference"]["hash"]
        return head

    def content(self, branch: str, name: Qualified) -> dict[str, Any] | None:
        """What a name stands for on a branch, as Nessie keeps it; None where it stands for nothing."""
        response = self.get(f"{self._trees}/{quote(branch, safe='')}/contents/{name}")
        if _error(response).get("errorCode") == "CONTENT_NOT_FOUND":
            return None
        content: dict[str, Any] = self._answer(response)["content"]
        return content

    def commit(self, branch: str, head: str, message: str, name: Qualified, operation: dict[str, Any]) -> None:
        """Change what a name stands for on a branch, if nobody has changed it since that commit."""
        path = f"{self._trees}/{quote(branch, safe='')}@{head}/history/commit"
        operations = [{**operation, "key": {"elements": list(name)}}]
        body = {"commitMeta": {"message": message}, "operations": operations}
        response = self.post(path, data=json.dumps(body).encode())
        if response.status_code == requests.codes.conflict:
            raise CommitFailedException(f"{str(name)!r} on {branch!r} was changed meanwhile: {_reason(response)}")
        self._answer(response)

    def _answer(self, response: requests.Response) -> dict[str, Any]:
        if _error(response).get("errorCode") == "REFERENCE_NOT_FOUND":
            raise _NoBranch(_reason(response))
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def request(self, method: str, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        """Send a request; what PyIceberg left out of it is put in."""
        options.setdefault("timeout", _TIMEOUT)
        if options.get("data"):
            options["data"] = _completed(options["data"])
        try:
            response = super().request(method, url, *args, **options)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Unavailable(f"Nessie cannot be reached: {error}") from error
        if response.ok:
            return response
        reason = _reason(response)
        if response.status_code in (401, 403) or _NOT_ALLOWED in reason:
            raise Forbidden(f"this role may not do that to the lakehouse: {reason}")
        if response.status_code >= 500:
            raise Unavailable(f"Nessie failed: {response.status_code} {reason}")
        if _type(response) == "NoSuchReferenceException":
            raise _NoBranch(reason)
        return response


class _NoBranch(Exception):
    """There is no branch of that name any more, or there never was one."""


def _check_columns(updates: tuple[TableUpdate, ...], answer: CommitTableResponse) -> None:
    """Fail where columns have other numbers than the files were written with: they would be read as others."""
    sent = [update.schema_ for update in updates if isinstance(update, AddSchemaUpdate)]
    kept = answer.metadata.schema()
    if sent and sent[-1].fields != kept.fields:
        raise Internal(f"Nessie counted the columns in another way: {kept} is not {sent[-1]}")


def _completed(body: bytes) -> bytes:
    """A commit with the highest field id of each schema, which PyIceberg leaves out and Nessie fails without."""
    content = json.loads(body)
    schemas = [update for update in content.get("updates", ()) if update.get("action") == "add-schema"]
    if not schemas:
        return body
    for update in schemas:
        update["last-column-id"] = Schema.model_validate(update["schema"]).highest_field_id
    return json.dumps(content).encode()


def _prefix(branch: str) -> str:
    return quote(f"{branch}|{WAREHOUSE}", safe="")


def _name(identifier: str | Identifier) -> Qualified:
    levels = Catalog.identifier_to_tuple(identifier)
    try:
        return Qualified.parse(".".join(levels))
    except ValueError as error:
        raise NoSuchTableError(str(error)) from error


def _reason(response: requests.Response) -> str:
    error = _error(response)
    return str(error.get("message") or response.text[:300])


def _type(response: requests.Response) -> str:
    return str(_error(response).get("type"))


def _error(response: requests.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    error = content.get("error", content) if isinstance(content, dict) else {}
    return error if isinstance(error, dict) else {}
