"""The two kinds of message: an event, a fact that anyone may hear, and a query, a question to one service."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from uuid import UUID, uuid4, uuid5

from pydantic import BaseModel, ConfigDict, Field

Answer = TypeVar("Answer")

Inbox = Annotated[str, Field(pattern=r"^_INBOX[A-Za-z0-9_.\-]+$")]
"""A subject that only its asker listens on."""

RAT_NAMESPACE = UUID("6f1b0c5e-6d0e-5b8e-9f0a-2d1f6a7c3e41")
"""The UUID namespace (RFC 9562, version 5) of every derived id."""


def derived_id(*parts: object) -> UUID:
    """The one id of these parts: the same parts give the same id in every process, now and later."""
    return uuid5(RAT_NAMESPACE, "\x1f".join(str(part) for part in parts))


def utc_now() -> datetime:
    """The present moment, with its zone."""
    return datetime.now(UTC)


class Message(BaseModel):
    """What travels over the bus as JSON. Fields that a reader does not know are ignored: schemas only grow."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Event(Message):
    """A fact in the past tense, bound to its subject in the class statement.

    `stored` says whether JetStream keeps it; `outside` names who else says or hears it, where no service of ours
    does by a durable consumer.
    """

    subject: ClassVar[str]
    stored: ClassVar[bool]
    outside: ClassVar[str | None]

    event_id: UUID = Field(default_factory=uuid4)
    """Its identity: the same for every repetition of the same fact."""
    occurred_at: datetime = Field(default_factory=utc_now)
    """When it came to be, with a time zone."""

    def __init_subclass__(cls, *, subject: str, stored: bool = True, outside: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.subject = subject
        cls.stored = stored
        cls.outside = outside

    def address(self) -> str:
        """The subject that this one is published on; differs from `subject` only where that has a wildcard."""
        return self.subject


class Query(Message, Generic[Answer]):
    """A question to the one service that answers its subject; `Answer` is the shape of the reply.

    Every query may be asked twice: the second answer is the first one's, or says what has become of it.
    """

    subject: ClassVar[str]
    answer: ClassVar[type[Any]]

    def __init_subclass__(cls, *, subject: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.subject = subject

    def address(self) -> str:
        """The subject that this one is asked on; differs from `subject` only where that has a wildcard."""
        return self.subject

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the type of the answer, which the class statement says."""
        for base in cls.__bases__:
            arguments = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
            if arguments:
                cls.answer = arguments[0]


def events() -> Iterator[type[Event]]:
    """Every event whose module has been imported, in the order of subjects."""
    yield from sorted(Event.__subclasses__(), key=lambda event: event.subject)


def queries() -> Iterator[type[Query[Any]]]:
    """Every query whose module has been imported, in the order of subjects."""
    found = {query for generic in Query.__subclasses__() for query in (generic, *generic.__subclasses__())}
    yield from sorted((query for query in found if query.subject), key=lambda query: query.subject)
