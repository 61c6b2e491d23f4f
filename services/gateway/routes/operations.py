"""What an operator looks at: how far the services are with their events, and what they could not handle."""

import json
from datetime import datetime
from itertools import count
from typing import Annotated, Any, Final

from litestar import Controller, get, post
from litestar.params import FromQuery, JSONBody, PathParameter

from contracts.audit import AuditEntries, ListAudit
from contracts.maintenance import CollectedFiles, CollectFiles
from contracts.messages import Message
from services.gateway.dependencies import Asker, Noted, Page
from services.gateway.tokens import Scope
from shared import consumers, dead_letters

_COLLECTION_SECONDS: Final = 3600.0

LetterId = Annotated[int, PathParameter(ge=1, le=2**53, description="The `id` of a dead letter")]


class ConsumerLag(Message):
    """How far a service is with an event that it hears."""

    stream: str
    consumer: str
    subject: str
    pending: int
    """Messages that wait to be delivered."""
    ack_pending: int
    """Messages that are being worked on."""
    redelivered: int
    """Those of them that were delivered before."""


class ConsumerLags(Message):
    """All consumers of the services."""

    consumers: list[ConsumerLag]
    total: int


class DeadLetter(Message):
    """A message that a service could not handle, and why."""

    id: int
    subject: str
    service: str
    reason: str
    deliveries: int
    event_id: str
    died_at: datetime
    size_bytes: int


class DeadLetterContent(DeadLetter):
    """A dead letter with what it says."""

    headers: dict[str, str]
    body: Any
    """JSON, or text where it is none."""


class DeadLetters(Message):
    """A page of dead letters."""

    dead_letters: list[DeadLetter]
    total: int
    next_cursor: str | None = None


@get("/consumers", tags=["Operations"])
async def list_consumers(bus: Asker) -> ConsumerLags:
    """Say how far each service is with the events that it hears."""
    found = [ConsumerLag.model_validate(vars(consumer)) for consumer in await consumers.consumers(bus.jetstream)]
    return ConsumerLags(consumers=found, total=len(found))


@get("/audit", tags=["Operations"], opt={"scope": Scope.ADMIN})
async def list_audit(
    bus: Asker,
    page: Page,
    user: FromQuery[str | None] = None,
    action: FromQuery[str | None] = None,
    resource: FromQuery[str | None] = None,
) -> AuditEntries:
    """List who did what, the newest first."""
    return await bus.ask(ListAudit(**page.model_dump(), user=user, action=action, resource=resource))


@post("/collections", tags=["Operations"], status_code=200, opt={"scope": Scope.ADMIN, "audit": "files.collect"})
async def collect_files(bus: Asker, notes: Noted, data: JSONBody[CollectFiles]) -> CollectedFiles:
    """Remove the files that neither main, nor a branch, nor the history of a table needs, or say which (`dry_run`).

    It takes as long as it takes, for an hour; broken off, it goes on at the next call.
    """
    collected = await bus.ask(data, timeout=_COLLECTION_SECONDS)
    notes.detail |= {"dry_run": data.dry_run, "files": collected.files, "bytes": collected.bytes}
    return collected


class DeadLetterRoutes(Controller):
    """Messages that could not be handled: looked at, and sent on their way again."""

    path = "/dead-letters"
    tags = ("Operations",)

    @get()
    async def list_dead_letters(self, bus: Asker, page: Page) -> DeadLetters:
        """List the dead letters, the oldest first."""
        total = await dead_letters.count_dead_letters(bus.jetstream)
        found: list[DeadLetter] = []
        if total > page.start:
            places = count()
            async for letter in dead_letters.dead_letters(bus.jetstream):
                if next(places) >= page.start:
                    found.append(DeadLetter.model_validate(_facts(letter)))
                if len(found) == page.limit:
                    break
        return DeadLetters(dead_letters=found, total=total, next_cursor=page.next_cursor(total))

    @get("/{letter_id:int}")
    async def find_dead_letter(self, bus: Asker, letter_id: LetterId) -> DeadLetterContent:
        """Show a dead letter with what it says."""
        letter = await dead_letters.find_dead_letter(bus.jetstream, letter_id)
        return DeadLetterContent.model_validate(
            _facts(letter) | {"headers": letter.headers, "body": _json(letter.body)}
        )

    @post("/{letter_id:int}/replay", status_code=202, opt={"audit": "dead_letter.replay"})
    async def replay_dead_letter(self, bus: Asker, notes: Noted, letter_id: LetterId) -> DeadLetter:
        """Publish a dead letter again on its own subject; it is no dead letter any more."""
        letter = await dead_letters.replay_dead_letter(bus.jetstream, letter_id)
        notes.detail |= {"subject": letter.subject, "event_id": letter.event_id}
        return DeadLetter.model_validate(_facts(letter))


def _facts(letter: dead_letters.DeadLetter) -> dict[str, Any]:
    return vars(letter) | {"size_bytes": len(letter.body)}


def _json(body: bytes) -> Any:
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
