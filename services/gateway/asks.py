"""What the gateway asks the other services: all that its paths need, and nothing of what they ask each other."""

from typing import Any, Final

from contracts.audit import ListAudit
from contracts.files import DeleteCodeFile, ListCodeFiles, ReadCodeFile, WriteCodeFile
from contracts.health import CheckHealth
from contracts.landing import (
    AddressSample,
    AddressUpload,
    ChangeZone,
    CreateZone,
    FindFile,
    FindZone,
    ListFiles,
    ListSamples,
    ListZones,
    RecordUpload,
    RejectFile,
    RemoveFile,
    RemoveSample,
    RemoveZone,
    RetryFile,
)
from contracts.lineage import FindColumnLineage, ListReads
from contracts.maintenance import CollectFiles
from contracts.messages import Query
from contracts.namespaces import CreateNamespace, DeleteNamespace, ListNamespaces, UpdateNamespace
from contracts.pipelines import (
    CompareVersion,
    CreatePipeline,
    DeletePipeline,
    FindPipeline,
    FindVersion,
    ListPipelines,
    ListVersions,
    PublishPipeline,
    RollBackPipeline,
    UpdatePipeline,
)
from contracts.previews import PreviewPipeline, RunTests
from contracts.quality import CreateQualityTest, DeleteQualityTest, ListQualityResults, ListQualityTests
from contracts.runs import AddressRunLogs, CancelRun, FindRun, ListRuns, RequestRun, RetryRun
from contracts.schedules import CreateSchedule, DeleteSchedule, FindSchedule, ListSchedules, UpdateSchedule
from contracts.tables import DocumentTable, FindTable, ListTables, PreviewTable, ReadSchemas, RunSql
from contracts.triggers import (
    CreateTrigger,
    DeleteTrigger,
    FindTrigger,
    FireTrigger,
    ListDecisions,
    ListTriggers,
    UpdateTrigger,
)

QUERIES: Final[tuple[type[Query[Any]], ...]] = (
    AddressRunLogs,
    AddressSample,
    AddressUpload,
    CancelRun,
    ChangeZone,
    CheckHealth,
    CollectFiles,
    CompareVersion,
    CreateNamespace,
    CreatePipeline,
    CreateQualityTest,
    CreateSchedule,
    CreateTrigger,
    CreateZone,
    DeleteCodeFile,
    DeleteNamespace,
    DeletePipeline,
    DeleteQualityTest,
    DeleteSchedule,
    DeleteTrigger,
    DocumentTable,
    FindColumnLineage,
    FindFile,
    FindPipeline,
    FindRun,
    FindSchedule,
    FindTable,
    FindTrigger,
    FindVersion,
    FindZone,
    FireTrigger,
    ListAudit,
    ListCodeFiles,
    ListDecisions,
    ListFiles,
    ListNamespaces,
    ListPipelines,
    ListQualityResults,
    ListQualityTests,
    ListReads,
    ListRuns,
    ListSamples,
    ListSchedules,
    ListTables,
    ListTriggers,
    ListVersions,
    ListZones,
    PreviewPipeline,
    PreviewTable,
    PublishPipeline,
    ReadCodeFile,
    ReadSchemas,
    RecordUpload,
    RejectFile,
    RemoveFile,
    RemoveSample,
    RemoveZone,
    RequestRun,
    RetryFile,
    RetryRun,
    RollBackPipeline,
    RunSql,
    RunTests,
    UpdateNamespace,
    UpdatePipeline,
    UpdateSchedule,
    UpdateTrigger,
    WriteCodeFile,
)
