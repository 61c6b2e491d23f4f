"""Pipelines, their versions and their quality tests."""

from typing import Literal

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from contracts.names import Layer
from contracts.pipelines import (
    CreatePipeline,
    DeletePipeline,
    FindPipeline,
    FindVersion,
    ListPipelines,
    ListVersions,
    Pipeline,
    PipelineCreated,
    Pipelines,
    PipelineVersion,
    PipelineVersions,
    Published,
    PublishPipeline,
    UpdatePipeline,
)
from contracts.quality import (
    CreateQualityTest,
    DeleteQualityTest,
    ListQualityTests,
    QualityTestCreated,
    QualityTests,
)
from services.gateway.bodies import NewPipeline, NewTest, PipelineChange, Publication
from services.gateway.dependencies import Asker, Noted, Page

_ONE = "/{namespace:str}/{layer:str}/{name:str}"


class PipelineRoutes(Controller):
    """What turns files and tables into tables."""

    path = "/pipelines"
    tags = ("Pipelines",)

    @get()
    async def list_pipelines(
        self,
        bus: Asker,
        page: Page,
        namespace: FromQuery[str | None] = None,
        layer: FromQuery[Layer | None] = None,
        search: FromQuery[str | None] = None,
        sort: FromQuery[
            Literal[
                "name",
                "-name",
                "created_at",
                "-created_at",
                "updated_at",
                "-updated_at",
                "published_at",
                "-published_at",
            ]
        ] = "name",
    ) -> Pipelines:
        """List pipelines."""
        query = ListPipelines(**page.model_dump(), namespace=namespace, layer=layer, search=search, sort=sort)
        return await bus.ask(query)

    @post(opt={"audit": "pipeline.create"})
    async def create_pipeline(self, bus: Asker, notes: Noted, data: JSONBody[NewPipeline]) -> PipelineCreated:
        """Make a pipeline with starter files that run as they are."""
        notes.resource = f"{data.namespace}/{data.layer}/{data.name}"
        return await bus.ask(CreatePipeline(**data.given()))

    @get(_ONE)
    async def find_pipeline(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> Pipeline:
        """Show a pipeline."""
        return await bus.ask(FindPipeline(pipeline=f"{namespace}.{layer}.{name}"))

    @put(_ONE, opt={"audit": "pipeline.update"})
    async def update_pipeline(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[PipelineChange],
    ) -> Pipeline:
        """Change what is given of a pipeline."""
        return await bus.ask(UpdatePipeline(pipeline=f"{namespace}.{layer}.{name}", **data.given()))

    @delete(_ONE, opt={"audit": "pipeline.delete"})
    async def delete_pipeline(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> None:
        """Delete a pipeline and cancel its runs; its tables stay."""
        await bus.ask(DeletePipeline(pipeline=f"{namespace}.{layer}.{name}"))

    @post(f"{_ONE}/publish", status_code=200, opt={"audit": "pipeline.publish"})
    async def publish_pipeline(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[Publication | None] = None,
    ) -> Published:
        """Check the draft, and make it the version that schedules and triggers run."""
        given = data.given() if data else {}
        return await bus.ask(PublishPipeline(pipeline=f"{namespace}.{layer}.{name}", **given))

    @get(f"{_ONE}/versions")
    async def list_versions(
        self, bus: Asker, page: Page, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> PipelineVersions:
        """List the versions of a pipeline that are kept, the newest first."""
        return await bus.ask(ListVersions(**page.model_dump(), pipeline=f"{namespace}.{layer}.{name}"))

    @get(f"{_ONE}/versions/{{version:int}}")
    async def find_version(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str], version: FromPath[int]
    ) -> PipelineVersion:
        """Show a version of a pipeline."""
        return await bus.ask(FindVersion(pipeline=f"{namespace}.{layer}.{name}", version=version))

    @get(f"{_ONE}/tests")
    async def list_tests(
        self, bus: Asker, page: Page, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> QualityTests:
        """List the quality tests of a pipeline's draft."""
        return await bus.ask(ListQualityTests(**page.model_dump(), pipeline=f"{namespace}.{layer}.{name}"))

    @post(f"{_ONE}/tests", opt={"audit": "quality_test.create"})
    async def create_test(
        self,
        bus: Asker,
        notes: Noted,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[NewTest],
    ) -> QualityTestCreated:
        """Write the file of a new quality test."""
        notes.resource = f"{namespace}/{layer}/{name}/{data.name}"
        return await bus.ask(CreateQualityTest(pipeline=f"{namespace}.{layer}.{name}", **data.given()))

    @delete(f"{_ONE}/tests/{{test:str}}", opt={"audit": "quality_test.delete"})
    async def delete_test(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str], test: FromPath[str]
    ) -> None:
        """Delete the file of a quality test."""
        await bus.ask(DeleteQualityTest(pipeline=f"{namespace}.{layer}.{name}", name=test))
