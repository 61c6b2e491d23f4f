"""The JetStream streams: which subjects are kept where, and for how long."""

from typing import Final

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

_DAY: Final = 24 * 3600.0

DEAD_PREFIX: Final = "dead."
"""A dead letter's subject: this, the service that could not handle it, and the message's own subject."""

EVENT_SUBJECTS: Final = (
    "file.landed",
    "file.processed",
    "run.requested",
    "run.rejected",
    "run.queued",
    "run.started",
    "run.progressed",
    "run.finished",
    "attempt.finished",
    "table.changed",
    "pipeline.published",
    "pipeline.edited",
    "pipeline.removed",
    "namespace.removed",
    "trigger.decided",
    "audit.recorded",
)

STREAMS: Final = (
    StreamConfig(name="EVENTS", subjects=list(EVENT_SUBJECTS), max_age=7 * _DAY),
    StreamConfig(name="BUCKET", subjects=["bucket.events"], max_age=7 * _DAY),
    StreamConfig(name="OUTSIDE", subjects=["event.>"], max_age=7 * _DAY),
    StreamConfig(name="LOGS", subjects=["log.run.*"], max_age=3600.0, storage=StorageType.MEMORY),
    StreamConfig(name="DEAD", subjects=[f"{DEAD_PREFIX}>"], max_age=30 * _DAY),
)


def stream_of(subject: str) -> str:
    """The stream that keeps a subject; `KeyError` for a subject that none keeps."""
    for stream in STREAMS:
        if any(_covers(pattern, subject) for pattern in stream.subjects or ()):
            return str(stream.name)
    raise KeyError(subject)


def _covers(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and given[: len(wanted) - 1] == wanted[:-1]
    return len(wanted) == len(given) and all(want in ("*", give) for want, give in zip(wanted, given, strict=True))


async def ensure_streams(jetstream: JetStreamContext, replicas: int) -> None:
    """Create the streams that are missing and bring the others up to date; any number of times.

    Raises an error of NATS while there is a stream that takes nothing: in a cluster, one that has no leader yet.
    """
    for stream in STREAMS:
        config = stream.evolve(
            num_replicas=replicas,
            retention=RetentionPolicy.LIMITS,
            storage=stream.storage or StorageType.FILE,
            duplicate_window=120.0,
        )
        try:
            await jetstream.add_stream(config)
        except nats.js.errors.BadRequestError:
            await jetstream.update_stream(config)
        # Its leader answers, and nobody else.
        await jetstream.stream_info(str(stream.name))
