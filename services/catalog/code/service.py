"""The code half of catalog: what it is asked about namespaces, pipelines, their files, tests and docs, and answers."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import asyncpg

from contracts.audit import AuditEntries, AuditRecorded, ListAudit
from contracts.files import (
    CodeFileContent,
    CodeFiles,
    CodeFileWritten,
    DeleteCodeFile,
    ListCodeFiles,
    ReadCodeFile,
    WriteCodeFile,
)
from contracts.landing import ListZones
from contracts.lineage import FindColumnLineage, ListReads, PipelinesRead, TableLineage
from contracts.names import Qualified
from contracts.namespaces import (
    CreateNamespace,
    DeleteNamespace,
    FindNamespace,
    FoundNamespace,
    ListNamespaces,
    Namespace,
    Namespaces,
    UpdateNamespace,
)
from contracts.pipelines import (
    CompareVersion,
    CreatePipeline,
    DeletePipeline,
    DraftPins,
    FindPipeline,
    FindVersion,
    ListPipelines,
    ListVersions,
    NamespaceRemoved,
    PinDraft,
    Pipeline,
    PipelineCreated,
    PipelineEdited,
    PipelinePublished,
    PipelineRemoved,
    Pipelines,
    PipelineVersion,
    PipelineVersions,
    Published,
    PublishPipeline,
    RollBackPipeline,
    RolledBack,
    UpdatePipeline,
    ValidatePipeline,
    VersionDiff,
)
from contracts.quality import (
    CreateQualityTest,
    DeleteQualityTest,
    ListQualityResults,
    ListQualityTests,
    QualityTestCreated,
    QualityTests,
    RecordedResults,
)
from contracts.tables import DocumentTable, FindTable, FindTableDocs, ListTableDocs, TableDocs, TableSummaries
from services.catalog.code import domain, drafts, files, history, lifecycle, lineage, publishing, quality
from services.catalog.code.lifecycle import OnRemoved
from services.catalog.code.paths import code_path
from services.catalog.code.store import audit, namespaces, pipelines, tables, versions
from services.catalog.code.store import lineage as lineage_store
from shared.bus import Bus
from shared.database import Connection
from shared.errors import AlreadyExists, NotFound, Unavailable
from shared.object_store import ObjectStore
from shared.pages import cursor_after, fitting
from shared.settings import Settings

N = TypeVar("N", bound=Namespace)


async def nothing_else(_connection: Connection, _pipeline_id: UUID) -> None:
    """Nothing belongs to the removal of a pipeline but what this half does."""


@dataclass(frozen=True, repr=False)
class Code:
    """The half of catalog that keeps the code of pipelines."""

    db: asyncpg.Pool
    objects: ObjectStore
    bus: Bus
    settings: Settings
    on_removed: OnRemoved = nothing_else

    # Namespaces

    async def list_namespaces(self, query: ListNamespaces) -> Namespaces:
        """List namespaces."""
        total = await namespaces.count(self.db)
        page = fitting(await namespaces.page(self.db, limit=query.limit, start=query.start))
        return Namespaces(namespaces=page, total=total, next_cursor=cursor_after(query, page, total))

    async def find_namespace(self, query: FindNamespace) -> FoundNamespace:
        """Show a namespace."""
        return _existing(await namespaces.find(self.db, query.name), query.name)

    async def create_namespace(self, query: CreateNamespace) -> Namespace:
        """Make a namespace."""
        created = await namespaces.create(self.db, query.name, query.description, query.created_by)
        if created is None:
            raise AlreadyExists(f"there is a namespace {query.name!r} already")
        return created

    async def update_namespace(self, query: UpdateNamespace) -> Namespace:
        """Describe a namespace anew."""
        return _existing(await namespaces.describe(self.db, query.name, query.description), query.name)

    async def delete_namespace(self, query: DeleteNamespace) -> None:
        """Delete a namespace, and by force what it holds; its tables stay."""
        await lifecycle.delete_namespace(self.db, self.bus, query, self.on_removed)
        await self._clear_removed_soon()

    # Pipelines

    async def list_pipelines(self, query: ListPipelines) -> Pipelines:
        """List pipelines."""
        total = await pipelines.count(self.db, query)
        page = fitting(await pipelines.page(self.db, query, start=query.start))
        return Pipelines(pipelines=page, total=total, next_cursor=cursor_after(query, page, total))

    async def find_pipeline(self, query: FindPipeline) -> Pipeline:
        """Show a pipeline, and whether its draft differs from what is published."""
        pipeline = await drafts.living(self.db, Qualified.parse(query.pipeline))
        return (await drafts.refreshed(self.db, self.objects, pipeline)).shown

    async def create_pipeline(self, query: CreatePipeline) -> PipelineCreated:
        """Make a pipeline with files that run as they are."""
        return await lifecycle.create_pipeline(self.db, self.objects, query)

    async def update_pipeline(self, query: UpdatePipeline) -> Pipeline:
        """Change what is given of a pipeline."""
        updated = await pipelines.update(self.db, query)
        if updated is None:
            raise NotFound(f"there is no pipeline {query.pipeline!r}")
        return (await drafts.refreshed(self.db, self.objects, updated)).shown

    async def delete_pipeline(self, query: DeletePipeline) -> None:
        """Delete a pipeline and cancel its runs; its tables stay."""
        await lifecycle.delete_pipeline(self.db, Qualified.parse(query.pipeline), self.on_removed)
        await self._clear_removed_soon()

    async def clear_removed(self) -> None:
        """Take the drafts of deleted pipelines out of their folders; all versions stay readable."""
        await drafts.clear_all(self.db, self.objects)

    async def _clear_removed_soon(self) -> None:
        # The deletion is committed: what cannot be done now, `clear_removed` does later.
        with suppress(Unavailable):
            await self.clear_removed()

    # Versions

    async def publish_pipeline(self, query: PublishPipeline) -> Published:
        """Check the draft of a pipeline and make it the version that schedules and triggers run."""
        return await publishing.publish(self.db, self.objects, self.bus, query)

    async def list_versions(self, query: ListVersions) -> PipelineVersions:
        """List the versions of a pipeline."""
        pipeline = await drafts.living(self.db, Qualified.parse(query.pipeline))
        total = await versions.count(self.db, pipeline.shown.id)
        page = fitting(await versions.page(self.db, pipeline.shown.id, limit=query.limit, start=query.start))
        return PipelineVersions(versions=page, total=total, next_cursor=cursor_after(query, page, total))

    async def find_version(self, query: FindVersion) -> PipelineVersion:
        """Show a version of a pipeline."""
        pipeline = await drafts.living(self.db, Qualified.parse(query.pipeline))
        found = await versions.find(self.db, pipeline.shown.id, query.version)
        if found is None:
            raise NotFound(f"{query.pipeline} has no version {query.version}, or it is not kept any more")
        return found

    async def roll_back_pipeline(self, query: RollBackPipeline) -> RolledBack:
        """Make a new version of the files of an older one."""
        return await history.roll_back(self.db, self.objects, query)

    async def compare_version(self, query: CompareVersion) -> VersionDiff:
        """Say what differs from a version to another one, or to the draft."""
        return await history.compare(self.db, self.objects, query)

    async def pin_draft(self, query: PinDraft) -> DraftPins:
        """Say which files a draft has now, at which versions."""
        return await history.pin_draft(self.db, self.objects, Qualified.parse(query.pipeline))

    # Quality tests

    async def list_quality_tests(self, query: ListQualityTests) -> QualityTests:
        """List the tests of a pipeline's draft."""
        return await quality.list_tests(self.db, self.objects, query)

    async def create_quality_test(self, query: CreateQualityTest) -> QualityTestCreated:
        """Write the file of a new test."""
        return await quality.create_test(self.db, self.objects, query)

    async def delete_quality_test(self, query: DeleteQualityTest) -> None:
        """Delete the file of a test."""
        await quality.delete_test(self.db, self.objects, query.pipeline, query.name)

    async def list_quality_results(self, query: ListQualityResults) -> RecordedResults:
        """List how a test judged the runs of its pipeline."""
        return await quality.list_results(self.db, query)

    # Lineage

    async def list_reads(self, query: ListReads) -> PipelinesRead:
        """List pipelines with what they read."""
        total = await lineage_store.count(self.db, query.namespace)
        found = await lineage_store.page(self.db, query.namespace, limit=query.limit, start=query.start)
        page = fitting(found)
        return PipelinesRead(pipelines=page, total=total, next_cursor=cursor_after(query, page, total))

    async def find_column_lineage(self, query: FindColumnLineage) -> TableLineage:
        """Say what the columns of a table come from."""
        return await lineage.column_lineage(self.db, self.bus, query)

    # Files

    async def list_code_files(self, query: ListCodeFiles) -> CodeFiles:
        """List the files of pipelines."""
        return await files.list_files(self.db, self.objects, query)

    async def read_code_file(self, query: ReadCodeFile) -> CodeFileContent:
        """Read a file of a draft."""
        path = code_path(query.path)
        await drafts.living(self.db, path.pipeline)
        return await drafts.read_text(self.objects, path.key)

    async def write_code_file(self, query: WriteCodeFile) -> CodeFileWritten:
        """Write a file of a draft, unless somebody else has changed it."""
        path = code_path(query.path)
        version_id = await drafts.write_file(self.db, self.objects, path, query.content, if_match=query.if_match)
        return CodeFileWritten(path=path.key, version_id=version_id)

    async def delete_code_file(self, query: DeleteCodeFile) -> None:
        """Delete a file of a draft."""
        await drafts.delete_file(self.db, self.objects, code_path(query.path))

    # What people say and did

    async def document_table(self, query: DocumentTable) -> TableDocs:
        """Keep what is said about a table."""
        return await tables.document(self.db, query)

    async def find_table_docs(self, query: FindTableDocs) -> TableDocs:
        """Say what is said about a table."""
        found = await tables.docs(self.db, Qualified.parse(query.table))
        return found or TableDocs(
            table=query.table, description="", owner=None, column_descriptions={}, updated_at=None
        )

    async def list_table_docs(self, query: ListTableDocs) -> TableSummaries:
        """Say what is said about many tables."""
        return TableSummaries(tables=await tables.summaries(self.db, query.tables))

    async def record_audit(self, event: AuditRecorded) -> None:
        """Keep who did what."""
        await audit.record(self.db, event, domain.without_nul(event.detail))

    async def list_audit(self, query: ListAudit) -> AuditEntries:
        """List who did what."""
        total = await audit.count(self.db, query)
        page = fitting(await audit.page(self.db, query, start=query.start))
        return AuditEntries(entries=page, total=total, next_cursor=cursor_after(query, page, total))


def wire(bus: Bus, code: Code) -> None:
    """Register what catalog hears, says, asks and answers about code."""
    bus.hear(AuditRecorded, code.record_audit)
    bus.answer(ListNamespaces, code.list_namespaces)
    bus.answer(FindNamespace, code.find_namespace)
    bus.answer(CreateNamespace, code.create_namespace)
    bus.answer(UpdateNamespace, code.update_namespace)
    bus.answer(DeleteNamespace, code.delete_namespace)
    bus.answer(ListPipelines, code.list_pipelines)
    bus.answer(FindPipeline, code.find_pipeline)
    bus.answer(CreatePipeline, code.create_pipeline)
    bus.answer(UpdatePipeline, code.update_pipeline)
    bus.answer(DeletePipeline, code.delete_pipeline)
    bus.answer(PublishPipeline, code.publish_pipeline)
    bus.answer(ListVersions, code.list_versions)
    bus.answer(FindVersion, code.find_version)
    bus.answer(RollBackPipeline, code.roll_back_pipeline)
    bus.answer(CompareVersion, code.compare_version)
    bus.answer(PinDraft, code.pin_draft)
    bus.answer(ListQualityResults, code.list_quality_results)
    bus.answer(ListQualityTests, code.list_quality_tests)
    bus.answer(CreateQualityTest, code.create_quality_test)
    bus.answer(DeleteQualityTest, code.delete_quality_test)
    bus.answer(ListReads, code.list_reads)
    bus.answer(FindColumnLineage, code.find_column_lineage)
    bus.answer(ListCodeFiles, code.list_code_files)
    bus.answer(ReadCodeFile, code.read_code_file)
    bus.answer(WriteCodeFile, code.write_code_file)
    bus.answer(DeleteCodeFile, code.delete_code_file)
    bus.answer(DocumentTable, code.document_table)
    bus.answer(FindTableDocs, code.find_table_docs)
    bus.answer(ListTableDocs, code.list_table_docs)
    bus.answer(ListAudit, code.list_audit)
    bus.asks(ValidatePipeline, ListZones, FindTable)
    bus.say(PipelinePublished, PipelineEdited, PipelineRemoved, NamespaceRemoved)


def _existing(namespace: N | None, name: str) -> N:
    if namespace is None:
        raise NotFound(f"there is no namespace {name!r}")
    return namespace
