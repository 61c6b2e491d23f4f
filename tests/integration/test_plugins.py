"""The package of `docs/plugins.md` is used by the runner as it stands there."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.pipelines import ValidatePipeline
from contracts.runs import ErrorKind
from infra.stacks.stack import Stack
from services.runner.service import serve
from tests.documents import DOCS, blocks
from tests.plugging import install
from tests.running import Surroundings, surroundings, table_name

BROKEN = """
[project]
name = "rat-broken"
version = "0.3"
[project.entry-points."rat.jinja"]
broken = "rat_broken:made"
"""


@pytest.fixture(scope="module")
async def around(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surroundings]:
    folder = tmp_path_factory.mktemp("plugins")
    install(folder, {block.path: block.text for block in blocks(DOCS / "plugins.md")})
    install(folder, {"pyproject.toml": BROKEN, "rat_broken.py": "raise RuntimeError('no licence')"})
    settings = stack.settings.model_copy(update={"runner_workers": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        async with surroundings(settings) as around, serve(settings):
            yield around


async def test_a_name_of_a_plugin_is_used_in_a_template(around: Surroundings) -> None:
    run = await around.request("select {{ cents('amount') }} as cents from (select 1.234 as amount)")
    wrong = await around.request("select\n  {{ cents('a b') }} as cents")

    assert (await around.finished(run)).error is None
    assert await around.rows(run.pipeline) == [(123,)]
    assert (await around.finished(wrong)).error == "pipeline.sql:2: cents() takes the name of a column, not 'a b'"


async def test_a_strategy_of_a_plugin_writes_the_table(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    for sql in ("select 1 as id", "select 2 as id", "select 3 as id where false"):
        run = await around.request(
            sql, pipeline=name, pipeline_id=pipeline_id, config="merge_strategy: Refill", parameters={"most_rows": 9}
        )
        assert (await around.finished(run)).error is None
    typo = await around.request("select 1 as id", config="merge_strategy: refil")

    assert await around.rows(name) == [(2,)]
    assert (await around.finished(typo)).error == (
        "config.yaml:1: unknown merge_strategy 'refil', did you mean 'refill'?"
    )


async def test_a_language_of_a_plugin_is_run_and_published_as_sql_is(around: Surroundings) -> None:
    source = await around.request("select 7 as id")
    await around.finished(source)
    name = source.pipeline.removeprefix("default.")

    run = await around.request(f"{name}\n", path="pipeline.table")
    ended = await around.finished(run)
    found = await around.bus.ask(ValidatePipeline(pipeline=run.pipeline, files=run.files))

    assert ended.error is None
    assert await around.rows(run.pipeline) == [(7,)]
    assert (found.valid, found.reads_tables) == (True, [source.pipeline])


async def test_a_hook_of_a_plugin_sees_the_run_and_may_refuse_it(around: Surroundings) -> None:
    sql = "select * from range(3) as t(id)"
    small = await around.request(sql, parameters={"most_rows": 3})
    large = await around.request(sql, parameters={"most_rows": 2})

    merged, refused = await around.finished(small), await around.finished(large)

    assert merged.error is None
    assert "3 rows of at most 3" in [line.message for line in merged.last_log_lines]
    assert refused.error_kind is ErrorKind.QUALITY
    assert refused.error == "refused by hook 'budget' (after_write): 3 rows are more than 2"
    assert await around.merges(large) == 0


async def test_a_broken_plugin_is_told_where_it_is_used_and_holds_up_nobody_else(around: Surroundings) -> None:
    run = await around.request("select 1 as id,\n  {{ broken }} as x")

    ended = await around.finished(run)
    found = await around.bus.ask(ValidatePipeline(pipeline=run.pipeline, files=run.files))

    told = (
        "plugin 'broken' of rat.jinja, from package rat-broken 0.3 (rat_broken:made), cannot be used:"
        " RuntimeError: no licence"
    )
    assert ended.error == f"pipeline.sql:2: {told}"
    assert [error.message for file in found.files for error in file.errors] == [told]
