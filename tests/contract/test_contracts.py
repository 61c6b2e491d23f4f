"""What the services say to each other holds together: subjects, producers, consumers, schemas, examples."""

import json
from pathlib import Path

import jsonschema
import pytest

from contracts.messages import Event, Query, events, queries
from infra.documents.__main__ import ROOT, documents
from infra.documents.events import consumers, declared, producers
from infra.documents.schemas import broken_promises, current_schemas, golden_schemas
from infra.servers.permissions import permissions
from shared.streams import EVENT_SUBJECTS, stream_of

BUSES = declared()
EVENTS = list(events())
QUERIES = list(queries())
EXAMPLES = ROOT / "contracts" / "examples"
SCHEMAS = ROOT / "contracts" / "schemas"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.subject)
def test_every_event_has_a_producer_and_a_consumer_or_is_for_outsiders(event: type[Event]) -> None:
    assert producers(event, BUSES) or event.outside, f"nobody says {event.subject}"
    assert consumers(event, BUSES) or event.outside, f"nobody hears {event.subject}"


@pytest.mark.parametrize(
    "query", [query for query in QUERIES if not query.subject.startswith("*")], ids=lambda query: query.subject
)
def test_every_query_is_answered_by_the_one_service_that_its_subject_names(query: type[Query]) -> None:
    answering = [name for name, bus in BUSES.items() if query in bus.answered]

    assert answering == [query.subject.partition(".")[0]]


@pytest.mark.parametrize("name", BUSES)
def test_the_user_of_a_service_may_publish_what_the_service_declares_and_no_other_message(name: str) -> None:
    bus = BUSES[name]
    allowed = {
        message for message in (*EVENTS, *QUERIES) if message.subject.replace("*.health", "catalog.health") in may(name)
    }

    replayed = {event for other in BUSES.values() for event in other.heard if event.stored}
    assert allowed == {*bus.said, *bus.asked} | (replayed if name == "gateway" else set())


def may(user: str) -> tuple[str, ...]:
    return permissions()[user].publish.allow


@pytest.mark.parametrize("event", [event for event in EVENTS if event.stored], ids=lambda event: event.subject)
def test_every_stored_event_has_its_stream(event: type[Event]) -> None:
    assert stream_of(event.subject)


def test_the_events_stream_keeps_no_subject_that_is_no_event() -> None:
    assert set(EVENT_SUBJECTS) <= {event.subject for event in EVENTS}


@pytest.mark.parametrize("message", [*EVENTS, *QUERIES], ids=lambda message: message.subject)
def test_every_event_and_query_says_what_it_is(message: type) -> None:
    assert message.__doc__
    assert message.__doc__.strip().partition("\n")[0].endswith((".", ":"))


def test_every_handler_says_what_it_does() -> None:
    handlers = [
        handler for bus in BUSES.values() for handler in [*bus.heard.values(), *bus.answered.values()] if handler
    ]

    silent = [handler.__qualname__ for handler in handlers if not handler.__doc__]
    assert not silent


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.subject)
def test_the_example_of_every_event_validates(event: type[Event]) -> None:
    text = (EXAMPLES / f"{event.subject.replace('.*', '')}.json").read_text()

    read = event.model_validate_json(text)
    jsonschema.validate(json.loads(text), event.model_json_schema(by_alias=True))
    assert event.model_validate_json(read.model_dump_json(by_alias=True)) == read


@pytest.mark.parametrize("file", documents().items(), ids=lambda file: Path(file[0]).name)
def test_generated_documents_are_as_the_code_says(file: tuple[Path, str]) -> None:
    path, text = file

    assert path.exists(), "make docs"
    assert path.read_text() == text, "make docs"


def test_published_schemas_only_grow() -> None:
    current = current_schemas()

    for name, golden in golden_schemas(SCHEMAS).items():
        assert name in current, f"{name} is gone"
        assert list(broken_promises(golden, current[name])) == []


@pytest.mark.parametrize(
    ("golden", "current", "promise"),
    [
        ({"properties": {"a": {"type": "string"}}}, {"properties": {}}, "/properties/a is gone"),
        (
            {"properties": {"a": {"type": "string"}}},
            {"properties": {"a": {"type": "integer"}}},
            '/properties/a/type was "string" and is "integer"',
        ),
        ({"required": []}, {"required": ["a"]}, "/required: 'a' has become required"),
    ],
)
def test_a_schema_that_does_more_than_grow_is_told(golden: dict, current: dict, promise: str) -> None:
    assert list(broken_promises(golden, current)) == [promise]


def test_an_optional_field_more_is_growth() -> None:
    golden = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    current = {"properties": {"a": {"type": "string"}, "b": {"type": "string", "default": ""}}, "required": ["a"]}

    assert list(broken_promises(golden, current)) == []
