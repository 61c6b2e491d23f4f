"""The SQL of quality tests: what is known of the files under `tests/quality/`."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from contracts.pipelines import CheckedTest
from contracts.quality import RecordedResult
from shared.database import Connection

_KEEP = """
insert into quality_tests (pipeline_id, name, description, severity, s3_path, tags, remediation)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (pipeline_id, name) do update
set description = $3, severity = $4, s3_path = $5, tags = $6, remediation = $7
"""


async def keep(db: Connection, pipeline_id: UUID, folder: str, tests: Sequence[CheckedTest]) -> None:
    """Keep what the headers of these tests say."""
    await db.executemany(
        _KEEP,
        [
            (
                pipeline_id,
                test.name,
                test.description,
                test.severity,
                folder + test.path,
                test.tags,
                test.remediation,
            )
            for test in tests
        ],
    )


async def forget(db: Connection, pipeline_id: UUID, name: str) -> None:
    """Forget a test whose file was deleted."""
    await db.execute("delete from quality_tests where pipeline_id = $1 and name = $2", pipeline_id, name)


async def forget_others(db: Connection, pipeline_id: UUID, names: Sequence[str]) -> None:
    """Forget all tests of a pipeline but these."""
    await db.execute("delete from quality_tests where pipeline_id = $1 and name <> all($2::text[])", pipeline_id, names)


async def is_known(db: asyncpg.Pool, pipeline_id: UUID, name: str) -> bool:
    """Whether a pipeline has, or had when it ran, a test of this name."""
    found: bool = await db.fetchval(
        """
        select exists (select from quality_tests where pipeline_id = $1 and name = $2)
          or exists (select from quality_results where pipeline_id = $1 and test_name = $2)
        """,
        pipeline_id,
        name,
    )
    return found


async def count_results(db: asyncpg.Pool, pipeline_id: UUID, name: str) -> int:
    """How many runs a test has judged, of those that are kept."""
    total: int = await db.fetchval(
        "select count(*) from quality_results where pipeline_id = $1 and test_name = $2", pipeline_id, name
    )
    return total


async def results(db: asyncpg.Pool, pipeline_id: UUID, name: str, *, limit: int, start: int) -> list[RecordedResult]:
    """How a test judged runs, the newest first."""
    rows = await db.fetch(
        """
        select run_id, status, severity, value::bigint as value, duration_ms, sample_rows, message, compiled_sql, ran_at
        from quality_results
        where pipeline_id = $1 and test_name = $2
        order by ran_at desc, id
        limit $3 offset $4
        """,
        pipeline_id,
        name,
        limit,
        start,
    )
    return [RecordedResult.model_validate(dict(row)) for row in rows]
