"""Pipelines and their versions."""

from typing import Any, Literal

from litestar import Controller, Response, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody

from contracts.names import Layer
from contracts.pipelines import (
    CompareVersion,
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
    RollBackPipeline,
    RolledBack,
    UpdatePipeline,
    VersionDiff,
)
from contracts.previews import Preview, PreviewPipeline
from services.gateway.bodies import NewPipeline, PipelineChange, PreviewRequest, Publication, Rollback
from services.gateway.dependencies import Asker, Departure, Noted, Page
from services.gateway.results import sent

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

    @get(f"{_ONE}/versions/{{version:int}}/diff")
    async def compare_version(
        self,
        bus: Asker,
        page: Page,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        version: FromPath[int],
        against: FromQuery[str] = "draft",
    ) -> VersionDiff:
        """Say what differs, file by file, from a version to the draft, or to the version `against`."""
        asked = {**page.model_dump(), "pipeline": f"{namespace}.{layer}.{name}", "version": version, "against": against}
        return await bus.ask(CompareVersion.model_validate(asked))

    @post(f"{_ONE}/rollback", status_code=200, opt={"audit": "pipeline.rollback"})
    async def roll_back_pipeline(
        self,
        bus: Asker,
        notes: Noted,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[Rollback],
    ) -> RolledBack:
        """Make a new version of the files of an older one; the draft stays as it is."""
        rolled_back = await bus.ask(RollBackPipeline(pipeline=f"{namespace}.{layer}.{name}", **data.given()))
        notes.detail["new_version"] = rolled_back.new_version
        return rolled_back

    @post(f"{_ONE}/preview", status_code=200, responses={200: ResponseSpec(Preview, generate_examples=False)})
    async def preview_pipeline(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        departure: Departure,
        data: JSONBody[PreviewRequest | None] = None,
    ) -> Response[Any]:
        """Run the draft, or code sent along, over samples where there are any; nothing is written."""
        asked = {"pipeline": f"{namespace}.{layer}.{name}", **(data.given() if data else {})}
        return await sent(bus, lambda inbox: PreviewPipeline.model_validate({**asked, "inbox": inbox}), departure)
