"""The examples of `docs/pipelines.md` are published without a word, and run, twice, as they are written there."""

from collections.abc import AsyncIterator
from itertools import groupby
from uuid import uuid4

import pytest

from contracts.pipelines import ValidatePipeline
from infra.stacks.stack import Stack
from services.runner.service import serve
from tests.documents import DOCS, Block, blocks
from tests.running import RunOf, Surroundings, surroundings

ORDERS = (
    "id,customer,amount,ordered_at\n"
    "1,ada,10.50,2026-01-01 10:00:00\n"
    "2,bob,20.00,2026-01-02 11:00:00\n"
    "3,ada,5.00,2026-01-02 12:00:00\n"
)


def pipeline_of(block: Block) -> str:
    layer, name, *_ = block.path.split("/")
    return f"default.{layer}.{name}"


EXAMPLES = [(name, list(own)) for name, own in groupby(blocks(DOCS / "pipelines.md"), pipeline_of)]


@pytest.fixture(scope="module")
async def around(stack: Stack) -> AsyncIterator[Surroundings]:
    settings = stack.settings.model_copy(update={"runner_workers": 2})
    async with surroundings(settings) as around, serve(settings):
        await around.upload("orders", "monday.csv", ORDERS)
        yield around


async def requested(around: Surroundings, pipeline: str, files: dict[str, str], pipeline_id: object) -> RunOf:
    tests = {path.split("/")[-1].removesuffix(".sql"): text for path, text in files.items() if "/" in path}
    main = "pipeline.sql" if "pipeline.sql" in files else "pipeline.py"
    return await around.request(
        files[main],
        path=main,
        pipeline=pipeline,
        pipeline_id=pipeline_id,
        config=files.get("config.yaml"),
        tests=tests,
    )


def test_the_guide_has_examples() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.parametrize(("pipeline", "own"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
async def test_an_example_is_published_and_run(around: Surroundings, pipeline: str, own: list[Block]) -> None:
    files = {block.path.split("/", 2)[2]: block.text for block in own}
    pipeline_id = uuid4()

    for _ in range(2):
        run = await requested(around, pipeline, files, pipeline_id)
        ended = await around.finished(run)
        assert ended.error is None
        assert (ended.quality.failed, ended.quality.errored) == (0, 0)
    found = await around.bus.ask(ValidatePipeline(pipeline=pipeline, files=run.files))

    assert found.valid
    assert [warning for file in found.files for warning in file.warnings] == []
