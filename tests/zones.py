"""Landing zones as ingest tells them, for tests that play ingest."""

from uuid import UUID

from contracts.landing import Zone
from contracts.messages import utc_now


def zone(namespace: str, name: str, *, expected_schema: str = "", file_count: int = 0) -> Zone:
    """A zone of this name."""
    now = utc_now()
    return Zone(
        id=UUID(int=0),
        namespace=namespace,
        name=name,
        description="",
        owner=None,
        expected_schema=expected_schema,
        processed_max_age_days=None,
        auto_purge=False,
        file_count=file_count,
        total_bytes=0,
        created_at=now,
        updated_at=now,
    )
