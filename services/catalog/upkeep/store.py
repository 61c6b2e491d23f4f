"""The SQL of upkeep."""

from datetime import timedelta
from uuid import UUID

import asyncpg


async def claim(
    db: asyncpg.Pool, job: str, subject: str, holder: str, *, lease: timedelta, interval: timedelta
) -> bool:
    """Take or renew a job, if nobody else has it, and it was not done for as long as the interval."""
    taken = await db.fetchval(
        """
        insert into upkeep (job, subject, holder, held_until)
        values ($1, $2, $3, now() + $4::interval)
        on conflict (job, subject) do update
          set holder = excluded.holder, held_until = excluded.held_until
          where upkeep.holder = excluded.holder and upkeep.held_until >= now()
            or upkeep.held_until < now()
              and (upkeep.done_at is null or upkeep.done_at <= now() - $5::interval)
        returning holder
        """,
        job,
        subject,
        holder,
        lease,
        interval,
    )
    return taken is not None


async def end_done(db: asyncpg.Pool, job: str, subject: str, holder: str) -> None:
    """Give a job back that is done."""
    await db.execute(
        """
        update upkeep
        set held_until = '-infinity', done_at = now()
        where job = $1 and subject = $2 and holder = $3
        """,
        job,
        subject,
        holder,
    )


async def end_undone(db: asyncpg.Pool, job: str, subject: str, holder: str) -> None:
    """Give a job back for somebody else to do."""
    await db.execute(
        "update upkeep set held_until = '-infinity' where job = $1 and subject = $2 and holder = $3",
        job,
        subject,
        holder,
    )


async def run_under_way(db: asyncpg.Pool, pipeline: str) -> UUID | None:
    """The run of a pipeline that is queued or worked on; there is one at a time."""
    run_id: UUID | None = await db.fetchval(
        "select id from runs where pipeline = $1 and queued_at is not null and finished_at is null limit 1",
        pipeline,
    )
    return run_id
