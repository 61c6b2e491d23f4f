"""Quality tests of pipelines: their files, how they judged runs, and how they judge main now."""

from typing import Any

from litestar import Controller, Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody

from contracts.previews import RunTests, Verdicts
from contracts.quality import (
    CreateQualityTest,
    DeleteQualityTest,
    ListQualityResults,
    ListQualityTests,
    QualityTestCreated,
    QualityTests,
    RecordedResults,
)
from services.gateway.bodies import NewTest
from services.gateway.dependencies import Asker, Departure, Noted, Page
from services.gateway.results import sent

_ONE = "/{namespace:str}/{layer:str}/{name:str}"


class QualityRoutes(Controller):
    """What judges the rows of a run before anybody else sees them."""

    path = "/pipelines"
    tags = ("Quality tests",)

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

    @post(f"{_ONE}/tests/run", status_code=200, responses={200: ResponseSpec(Verdicts, generate_examples=False)})
    async def run_tests(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str], departure: Departure
    ) -> Response[Any]:
        """Run the tests of the draft on what main holds now; nothing is recorded."""
        pipeline = f"{namespace}.{layer}.{name}"
        return await sent(bus, lambda inbox: RunTests(pipeline=pipeline, inbox=inbox), departure)

    @get(f"{_ONE}/tests/{{test:str}}/results")
    async def list_results(
        self,
        bus: Asker,
        page: Page,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        test: FromPath[str],
    ) -> RecordedResults:
        """List how a test judged the runs of its pipeline, the newest first."""
        pipeline = f"{namespace}.{layer}.{name}"
        return await bus.ask(ListQualityResults(**page.model_dump(), pipeline=pipeline, name=test))
