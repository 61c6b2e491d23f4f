from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from uuid import UUID

import asyncpg
import pytest
from litestar.exceptions import MethodNotAllowedException, NotFoundException, ValidationException
from pydantic import BaseModel, ValidationError

from services.gateway.encoding import json_bytes
from services.gateway.problems import STATUS, as_error, problem, status_of
from shared.errors import BY_CODE, Conflict, Internal, Invalid, Unavailable, Unprocessable


def test_every_error_has_a_status():
    assert STATUS.keys() == BY_CODE.keys()


def test_a_problem_has_the_members_of_the_rfc_and_those_that_clients_know():
    assert problem(Conflict("it has ended"), 409, "/api/v1/runs/1") == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "it has ended",
        "instance": "/api/v1/runs/1",
        "error": {"code": "CONFLICT", "type": "conflict", "message": "it has ended"},
    }


def test_details_are_members_of_their_own_and_replace_none():
    body = problem(Unprocessable("no", details={"validation": {"valid": False}, "status": 200}), 422, "/")

    assert body["validation"] == {"valid": False}
    assert body["status"] == 422


def test_what_nobody_foresaw_tells_nothing():
    error = as_error(RuntimeError("password is hunter2"))

    assert isinstance(error, Internal)
    assert "hunter2" not in error.message


@pytest.mark.parametrize("raised", [ConnectionRefusedError(111, "refused"), asyncpg.InterfaceError("pool is closing")])
def test_a_server_that_cannot_be_reached_is_no_fault_of_ours(raised: Exception):
    assert isinstance(as_error(raised), Unavailable)


def test_what_does_not_fit_is_told_by_field():
    class Body(BaseModel):
        name: str
        size: int

    with pytest.raises(ValidationError) as raised:
        Body.model_validate({"size": "x"})
    error = as_error(raised.value)

    assert isinstance(error, Invalid)
    assert "name: Field required" in error.message
    assert "size: Input should be a valid integer" in error.message
    assert error.message.endswith(", not 'x'")


def test_litestars_own_refusals_are_told_in_our_words():
    missing = ValidationException(extra=[{"key": "data", "message": "'data'"}])
    refused = MethodNotAllowedException()

    assert as_error(missing).message == "a body in JSON is needed"
    assert as_error(NotFoundException()).code == "NOT_FOUND"
    assert status_of(as_error(refused), refused) == 405


class Colour(StrEnum):
    RED = "red"


class Inner(BaseModel):
    at: datetime
    id: UUID


class Page(BaseModel):
    items: list[Inner]
    colour: Colour
    facts: dict[str, object] = {}
    nothing: int | None = None
    next_cursor: str | None = None


def test_answers_have_times_in_utc_with_microseconds_and_no_empty_cursor():
    at = datetime(2026, 1, 2, 3, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    page = Page(
        items=[Inner(at=at, id=UUID(int=1))], colour=Colour.RED, facts={"when": datetime(2026, 1, 1, tzinfo=UTC)}
    )

    assert json_bytes(page) == (
        b'{"items":[{"at":"2026-01-02T01:00:00.000000Z","id":"00000000-0000-0000-0000-000000000001"}],'
        b'"colour":"red","facts":{"when":"2026-01-01T00:00:00.000000Z"},"nothing":null}'
    )
