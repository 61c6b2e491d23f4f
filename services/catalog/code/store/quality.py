"""The SQL of quality tests: what is known of the files under `tests/quality/`."""

from collections.abc import Sequence
from uuid import UUID

from contracts.pipelines import CheckedTest
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
