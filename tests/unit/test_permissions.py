"""What users of NATS may do follows from what the services declare, and from nothing else."""

from contracts.health import CheckHealth
from contracts.runs import FindRun, LogWritten, RunCancel, RunFinished, RunQueued, RunRequested
from contracts.tables import RunSql
from infra.servers.permissions import Permissions, declared_permissions, permissions, render
from shared.bus import Bus, declare


async def handle(_message: object) -> None: ...


def of(*buses: Bus) -> dict[str, Permissions]:
    return declared_permissions({bus.service: bus for bus in buses})


def test_a_service_that_declares_nothing_may_answer_for_its_health_and_no_more() -> None:
    rules = of(declare("kiosk"))["kiosk"]

    assert rules.publish.allow == ()
    assert rules.subscribe.allow == ("_INBOX_kiosk.>", "kiosk.health")


def test_what_is_said_and_asked_may_be_published() -> None:
    kiosk, other = declare("kiosk"), declare("other")
    kiosk.say(RunQueued, RunCancel, LogWritten)
    kiosk.asks(FindRun, CheckHealth)

    assert of(kiosk, other)["kiosk"].publish.allow == (
        "catalog.find_run",
        "kiosk.health",
        "log.run.*",
        "other.health",
        "run.cancel",
        "run.queued",
    )


def test_what_is_heard_is_pulled_by_a_consumer_of_ones_own_and_buried_in_ones_own_name() -> None:
    kiosk = declare("kiosk")
    kiosk.hear(RunFinished, handle)

    assert of(kiosk)["kiosk"].publish.allow == (
        "$JS.ACK.EVENTS.kiosk-run-finished.>",
        "$JS.API.CONSUMER.CREATE.EVENTS.kiosk-run-finished.run.finished",
        "$JS.API.CONSUMER.INFO.EVENTS.kiosk-run-finished",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.kiosk-run-finished",
        "dead.kiosk.run.finished",
    )
    assert "run.finished" not in of(kiosk)["kiosk"].subscribe.allow


def test_what_nobody_stores_is_subscribed() -> None:
    kiosk = declare("kiosk")
    kiosk.hear(RunCancel, handle)

    assert "run.cancel" in of(kiosk)["kiosk"].subscribe.allow
    assert of(kiosk)["kiosk"].publish.allow == ()


def test_chunks_are_sent_to_those_who_ask_for_them_and_as_long_as_they_read() -> None:
    kiosk, reader, other = declare("kiosk"), declare("reader"), declare("other")
    kiosk.answer(RunSql, handle)
    other.answer(FindRun, handle)
    reader.asks(RunSql, FindRun)
    rules = of(kiosk, reader, other)

    assert rules["kiosk"].publish.allow == ("_INBOX_reader.chunks.*",)
    assert rules["other"].publish.allow == ()
    assert [rules[name].allow_responses.expires for name in ("kiosk", "other")] == ["86400s", "60s"]  # type: ignore[union-attr]


def test_who_reads_a_stream_may_not_touch_the_consumers_of_the_services() -> None:
    kiosk, reader = declare("kiosk"), declare("reader")
    kiosk.hear(RunRequested, handle)
    reader.reads("EVENTS")
    rules = of(kiosk, reader)

    for name in ("reader", "subscriber"):
        assert "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*" in rules[name].publish.allow
        assert "$JS.API.CONSUMER.CREATE.EVENTS" not in rules[name].publish.allow
        assert "$JS.API.CONSUMER.MSG.NEXT.EVENTS.kiosk-run-requested" in rules[name].publish.deny
        assert "$JS.ACK.EVENTS.kiosk-run-requested.>" in rules[name].publish.deny


def test_the_operators_service_may_replay_what_is_heard_and_nothing_else() -> None:
    gateway, kiosk = declare("gateway"), declare("kiosk")
    kiosk.hear(RunRequested, handle)
    kiosk.say(RunFinished)

    allowed = of(gateway, kiosk)["gateway"].publish.allow
    assert "run.requested" in allowed
    assert "run.finished" not in allowed
    assert "$JS.API.STREAM.MSG.DELETE.DEAD" in allowed
    assert "$JS.API.STREAM.MSG.DELETE.EVENTS" not in allowed


def test_permissions_are_read_as_they_were_written() -> None:
    assert Permissions.model_validate(permissions()["query"].configuration()) == permissions()["query"]
    assert '"allow_responses"' in render(permissions())
