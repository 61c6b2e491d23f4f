"""A small model of the world in which runs happen, explored exhaustively.

One pipeline, a run and its successor, zone A with a file and zone B without one. Everything that may happen next, in
any order: runners take, claim, branch, ask, write, merge and report one step at a time; runners are killed; messages
are delivered again while their runner lives on as a zombie; somebody cancels; a test fails; a file is replaced or
arrives late; events are heard whenever. What is decided is decided by the services' own pure functions; only the
servers (queue, branches, main, bucket) are simple stand-ins here, as their promises are.
"""

import gc
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple
from uuid import UUID

from contracts.landing import ZoneForm
from contracts.runs import Attempt, AttemptState, ClaimReason, ErrorKind, RunStatus
from services.catalog.runs import domain as catalog
from services.ingest import domain as ingest
from services.runner import domain as runner

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = catalog.Limits(outage=timedelta(hours=1), silence=timedelta(minutes=2), unclaimed=timedelta(hours=2))
RUN_IDS = (UUID(int=1), UUID(int=2))
ATTEMPT = Attempt.model_construct(conflicts=0, file_changes=0, retries=0)
READY, HELD = 0, 1


class Run(NamedTuple):
    """A run in catalog's database."""

    status: RunStatus = RunStatus.PENDING
    attempt: int = 0
    queue_number: int = 0
    cancel_requested: bool = False
    ending: RunStatus | None = None
    lost_in_a_row: int = 0


class Runner(NamedTuple):
    """A runner that holds a `run.queued`, and the step that it takes next."""

    run: int
    queue_number: int
    step: str
    attempt: int
    files: tuple[tuple[str, int], ...] = ()
    end: RunStatus | None = None
    merged: bool = False
    reason: ClaimReason = ClaimReason.RETRY


class Branch(NamedTuple):
    """A branch of the lakehouse, with the versions of files whose rows are on it."""

    run: int
    attempt: int
    is_open: bool
    base: int
    content: tuple[tuple[str, int], ...] | None = None


class Claim(NamedTuple):
    """A row of ingest's `file_reads`."""

    run: int
    file: str
    version: int
    state: ingest.ReadState


class Faults(NamedTuple):
    """What may still go wrong."""

    crashes: int = 0
    redeliveries: int = 0
    cancels: int = 0
    late_files: int = 0
    failing_tests: int = 0


class World(NamedTuple):
    """Everything that is stored somewhere, and every process."""

    faults: Faults
    runs: tuple[Run, Run] = (Run(queue_number=1), Run())
    messages: tuple[tuple[int, int, int], ...] = ((0, 1, READY),)
    runners: tuple[Runner, ...] = ()
    branches: tuple[Branch, ...] = ()
    main: tuple[tuple[int, int, tuple[tuple[str, int], ...]], ...] = ()
    a: int = 1
    b: int = 0
    claims: tuple[Claim, ...] = ()
    answered: tuple[tuple[int, str], ...] = ()
    first_answers: tuple[tuple[int, str, int], ...] = ()
    answers_differ: bool = False
    settled: tuple[int, ...] = ()
    asked_by: tuple[int, int] = (0, 0)
    changed_for: tuple[int | None, int | None] = (None, None)
    ended: tuple[tuple[int, int, RunStatus, bool], ...] = ()
    finished: tuple[tuple[int, RunStatus], ...] = ()


class Rules(NamedTuple):
    """The rules that a test takes out, to see that they are needed."""

    attempt_is_checked: bool = True
    later_attempts_look_back: bool = True
    empty_answers_are_kept: bool = True
    runs_without_claims_are_settled: bool = True


Step = tuple[str, World]


class Finding(NamedTuple):
    """What an exploration found: how many worlds there are, and how a promise was broken, if one was."""

    worlds: int
    broken: str | None = None
    story: tuple[str, ...] = ()


@cache
def explore(faults: Faults, rules: Rules = Rules()) -> Finding:  # it never changes
    """Visit every world that can come to be, and stop at the first broken promise, told by the shortest story."""
    # Nothing here refers to itself, and looking for what does costs a quarter of the time.
    gc.disable()
    try:
        return _explored(faults, rules)
    finally:
        gc.enable()


def _explored(faults: Faults, rules: Rules) -> Finding:
    start = World(faults)
    came_from: dict[World, tuple[str, World] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        following = list(steps(world, rules))
        broken = broken_promise(world)
        if broken is None and not any(label[0] != "!" for label, _ in following):
            broken = broken_at_the_end(world)
        if broken is not None:
            return Finding(len(came_from), broken, _story(came_from, world))
        for label, after in following:
            step = (label, world)
            if came_from.setdefault(after, step) is step:
                waiting.append(after)
    return Finding(len(came_from))


def _story(came_from: dict[World, tuple[str, World] | None], world: World) -> tuple[str, ...]:
    labels = []
    while (before := came_from[world]) is not None:
        label, world = before
        labels.append(label)
    return tuple(reversed(labels))


# What must always hold


def broken_promise(world: World) -> str | None:
    """Which promise does not hold in this world."""
    on_main = [run for run, _, _ in world.main]
    if len(set(on_main)) < len(on_main):
        return "a run is on main twice"
    files = [file for _, _, content in world.main for file in content]
    if len(set(files)) < len(files):
        return "a file is on main twice"
    if world.answers_differ:
        return "attempts of one run read different files"
    for run in on_main:
        if world.runs[run].status in (RunStatus.FAILED, RunStatus.CANCELLED):
            return f"a run that is reported {world.runs[run].status} is on main"
    return None


def broken_at_the_end(world: World) -> str | None:
    """Which promise does not hold although nothing more will happen."""
    if not all(run.status.is_terminal for run in world.runs):
        return "a run never ends"
    if world.runners or world.messages or world.ended or world.finished:
        return "something waits for ever"
    if any(claim.state is ingest.ReadState.CLAIMED for claim in world.claims):
        return "a claim is never settled"
    read = {(claim.file, claim.version) for claim in world.claims if claim.state is ingest.ReadState.READ}
    on_main = {file for _, _, content in world.main for file in content}
    if read - on_main:
        return f"a file counts as read, and its rows are lost: {sorted(read - on_main)}"
    if on_main - read:
        return f"a file counts as unread, and its rows are on main: {sorted(on_main - read)}"
    return None


# What may happen next. Labels of faults begin with "!": nothing may depend on them.


def steps(world: World, rules: Rules) -> Iterator[Step]:
    """Every next step of everybody."""
    yield from _deliveries(world)
    for number, one in enumerate(world.runners):
        if number == 0 or world.runners[number - 1] != one:
            yield from _runner_steps(world, number, rules)
    yield from _heard_events(world, rules)
    yield from _repairs(world)
    yield from _intruders(world)


def _deliveries(world: World) -> Iterator[Step]:
    for number, (run, queue_number, state) in enumerate(world.messages):
        held = _replaced(world.messages, number, (run, queue_number, HELD))
        ready = _replaced(world.messages, number, (run, queue_number, READY))
        if state == READY:
            yield (
                "deliver",
                _claim(
                    world._replace(messages=held),
                    Runner(run, queue_number, "claim", 0, reason=ClaimReason.DELIVERY),
                    world.runners,
                ),
            )
        elif not any(one.run == run and one.queue_number == queue_number for one in world.runners):
            yield "lease runs out", world._replace(messages=ready)
        elif world.faults.redeliveries:
            faults = world.faults._replace(redeliveries=world.faults.redeliveries - 1)
            yield "! delivered again", world._replace(messages=ready, faults=faults)


def _claim(world: World, one: Runner, others: tuple[Runner, ...]) -> World:
    follows = None if one.reason is ClaimReason.DELIVERY else one.attempt
    verdict, run = _judge(world.runs[one.run], one.queue_number, one.reason, follows)
    world = world._replace(runs=_replaced(world.runs, one.run, run))
    match verdict:
        case "attempt":
            return _go(world, others, Runner(one.run, one.queue_number, "create", run.attempt))
        case "end":
            return _go(world, others, Runner(one.run, one.queue_number, "close all", run.attempt, end=run.ending))
        case "over":
            return _acknowledge(world, one, others)
        case _:
            return world._replace(runners=others)


def _runner_steps(world: World, number: int, rules: Rules) -> Iterator[Step]:
    one = world.runners[number]
    others = world.runners[:number] + world.runners[number + 1 :]
    run = world.runs[one.run]
    merged_attempt = next((attempt for merged, attempt, _ in world.main if merged == one.run), None)
    if world.faults.crashes:
        faults = world.faults._replace(crashes=world.faults.crashes - 1)
        yield f"! killed before: {one.step}", world._replace(runners=others, faults=faults)
    if run.cancel_requested and one.step in ("close older", "look", "ask A", "ask B", "write", "check files"):
        yield "hear cancel", _go(world, others, one._replace(step="close own", end=RunStatus.CANCELLED))
    match one.step:
        case "claim":
            yield "claim again", _claim(world, one, others)
        case "create":
            branch = Branch(one.run, one.attempt, is_open=True, base=len(world.main))
            world = world._replace(branches=_sorted((*world.branches, branch)))
            yield "create branch", _go(world, others, one._replace(step="check"))
        case "check":
            match _after_check(run, one.attempt) if rules.attempt_is_checked else runner.Work():
                case runner.Work():
                    looks_back = runner.follows_others(one.attempt) and rules.later_attempts_look_back
                    step = "close older" if looks_back else "ask A"
                    yield "attempt may go on", _go(world, others, one._replace(step=step))
                case runner.Stop():
                    yield "attempt is superseded", world._replace(runners=others)
                case runner.ClaimAgain(reason):
                    yield "run is not wanted", _go(world, others, one._replace(step="claim", reason=reason))
        case "close older":
            closed = _closed(world, one.run, _older(one.run, one.attempt))
            yield "close older branches", _go(closed, others, one._replace(step="look"))
        case "look" if merged_attempt is not None:
            yield "found on main", _go(world, others, _success(one, merged_attempt))
        case "look":
            yield "not on main", _go(world, others, one._replace(step="ask A"))
        case "ask A" | "ask B":
            yield from _ask(world, one, others, rules)
        case "write":
            yield "write", _write(world, one, others)
        case "check files":
            yield from _check_files(world, one, others)
        case "merge":
            yield "merge", _merge(world, one, others, merged_attempt)
        case "close own":
            closed = _closed(world, one.run, _to_end(one.run, one.attempt))
            yield "close own and older branches", _go(closed, others, one._replace(step="look again"))
        case "close all":
            closed = _closed(world, one.run, frozenset(branch.attempt for branch in world.branches))
            yield "close all branches", _go(closed, others, one._replace(step="look again"))
        case "look again":
            assert one.end is not None
            status, attempt = runner.end_of(one.end, one.attempt, merged_attempt)
            said = one._replace(step="say", attempt=attempt, end=status, merged=merged_attempt is not None)
            yield "look again", _go(world, others, said)
        case "say":
            assert one.end is not None
            said_end = (one.run, one.attempt, one.end, one.merged)
            world = world._replace(ended=_sorted({*world.ended, said_end}))
            yield f"say {one.end}", _go(world, others, one._replace(step="acknowledge"))
        case "acknowledge":
            yield "acknowledge", _acknowledge(world, one, others)


def _success(one: Runner, attempt: int) -> Runner:
    return one._replace(step="say", attempt=attempt, end=RunStatus.SUCCESS, merged=True, files=())


def _ask(world: World, one: Runner, others: tuple[Runner, ...], rules: Rules) -> Iterator[Step]:
    zone = one.step[-1]
    is_answered = (one.run, zone) in world.answered
    mine = _held_by(world, one.run, zone)
    answer = ingest.answer_claim(
        _record(world, one.run),
        one.attempt,
        ZoneForm.NEW,
        kept=tuple(ZONE_FILES[file] for file in mine) if is_answered else None,
        zone_files=[ZONE_FILES[file] for file in _held_in(world, zone)],
        read_ids={
            ZONE_FILES[claim.file, claim.version].file_id
            for claim in world.claims
            if claim.state is ingest.ReadState.READ
        },
        is_earlier_unsettled=any(run != one.run and run not in world.settled for run, _ in world.answered),
    )
    match answer:
        case ingest.Ready(files, is_new):
            names = tuple(FILE_NAMES[file] for file in files)
            asked_by = _replaced(world.asked_by, one.run, max(world.asked_by[one.run], one.attempt))
            world = _compared(world._replace(asked_by=asked_by), one.run, zone, len(names))
            if is_new:
                claims = (Claim(one.run, *name, ingest.ReadState.CLAIMED) for name in names)
                world = world._replace(claims=_sorted((*world.claims, *claims)))
                if names or rules.empty_answers_are_kept:
                    world = world._replace(answered=_sorted((*world.answered, (one.run, zone))))
            step = "ask B" if zone == "A" else "write"
            yield f"ask for {zone}", _go(world, others, one._replace(step=step, files=one.files + names))
        case ingest.Over():
            yield f"ask for {zone}: over", world._replace(runners=others)


def _compared(world: World, run: int, zone: str, files: int) -> World:
    """Hold an answer against the first one that the run got."""
    for answered_run, answered_zone, first in world.first_answers:
        if (answered_run, answered_zone) == (run, zone):
            return world._replace(answers_differ=True) if first != files else world
    return world._replace(first_answers=_sorted((*world.first_answers, (run, zone, files))))


def _write(world: World, one: Runner, others: tuple[Runner, ...]) -> World:
    """DuckDB reads keys, not versions: what is written is what lies there now."""
    if not one.files:
        return _go(world, others, one._replace(step="say", end=RunStatus.SUCCESS))
    mine = Branch(one.run, one.attempt, is_open=True, base=0)
    content = tuple(file for name, _ in one.files for file in _held_in(world, name))
    branches = []
    for branch in world.branches:
        if branch[:2] != mine[:2]:
            branches.append(branch)
        elif branch.is_open:
            branches.append(branch._replace(content=content))
        else:
            return world._replace(runners=others)
    return _go(world._replace(branches=_sorted(branches)), others, one._replace(step="check files"))


def _check_files(world: World, one: Runner, others: tuple[Runner, ...]) -> Iterator[Step]:
    held = [claim for claim in world.claims if claim.run == one.run and claim.state is ingest.ReadState.CLAIMED]
    claims = {ingest.Claim(ZoneForm.NEW, ZONE_FILES[claim.file, claim.version]): claim for claim in held}
    current = {ZONE_FILES[claim.file, claim.version].key: ZONE_FILES[_held_in(world, claim.file)[0]] for claim in held}
    found = ingest.recheck(_record(world, one.run), one.attempt, claims, current)
    match found:
        case ingest.Changed(moves):
            moved = {claims[move.claim]: FILE_NAMES[move.to] for move in moves if move.to is not None}
            rows = (claim._replace(version=moved[claim][1]) if claim in moved else claim for claim in world.claims)
            changed_for = _replaced(world.changed_for, one.run, one.attempt)
            world = world._replace(claims=_sorted(rows), changed_for=changed_for)
            state = runner.FilesState.CHANGED
        case ingest.Over():
            state = runner.FilesState.OVER
        case _:
            state = runner.FilesState.UNCHANGED
    match runner.after_files(state, (), ATTEMPT):
        case runner.Work():
            yield "tests pass", _go(world, others, one._replace(step="merge"))
            if world.faults.failing_tests:
                faults = world.faults._replace(failing_tests=world.faults.failing_tests - 1)
                failed = one._replace(step="close own", end=RunStatus.FAILED)
                yield "! a test fails", _go(world._replace(faults=faults), others, failed)
        case runner.ClaimAgain(reason):
            again = one._replace(step="claim", reason=reason, files=())
            yield "files changed", _go(world, others, again)
        case _:
            yield "files checked: over", world._replace(runners=others)


def _merge(world: World, one: Runner, others: tuple[Runner, ...], merged_attempt: int | None) -> World:
    branch = next(branch for branch in world.branches if branch[:2] == (one.run, one.attempt))
    if merged_attempt is not None:
        return _go(world, others, _success(one, merged_attempt))
    if not branch.is_open:
        outcome = runner.MergeOutcome.CLOSED
    elif len(world.main) > branch.base:
        outcome = runner.MergeOutcome.CONFLICT
    else:
        outcome = runner.MergeOutcome.MERGED
    match runner.after_merge(outcome, ATTEMPT, 0):
        case runner.Succeed():
            assert branch.content is not None
            main = (*world.main, (one.run, one.attempt, branch.content))
            branches = tuple(other for other in world.branches if other is not branch)
            return _go(world._replace(main=main, branches=branches), others, _success(one, one.attempt))
        case runner.ClaimAgain(reason):
            return _go(world, others, one._replace(step="claim", reason=reason, files=()))
        case _:
            return world._replace(runners=others)


def _heard_events(world: World, rules: Rules) -> Iterator[Step]:
    for end in world.ended:
        run, attempt, status, is_on_main = end
        after = world._replace(ended=tuple(other for other in world.ended if other != end))
        if catalog.counts(_state(world.runs[run]), attempt=attempt, status=status, is_on_main=is_on_main):
            yield f"run {run + 1} ends: {status}", _end(after, run, status)
        else:
            yield "an end that does not count", after
    for finished in world.finished:
        after = world._replace(finished=tuple(other for other in world.finished if other != finished))
        yield "settle", _settle(after, *finished, rules)


def _settle(world: World, run: int, status: RunStatus, rules: Rules) -> World:
    state = ingest.settled_state(status, dry_run=False)
    has_claims = any(claim.run == run for claim in world.claims)
    claims = (
        claim._replace(state=state) if claim.run == run and claim.state is ingest.ReadState.CLAIMED else claim
        for claim in world.claims
    )
    # A released claim is of no more consequence than none.
    kept = [claim for claim in claims if claim.state is not ingest.ReadState.RELEASED]
    world = world._replace(claims=_sorted(kept))
    if has_claims or rules.runs_without_claims_are_settled:
        world = world._replace(settled=_sorted({*world.settled, run}))
    return world


def _repairs(world: World) -> Iterator[Step]:
    """A run that nobody holds and no message offers is silent, and is queued again."""
    for number, run in enumerate(world.runs):
        is_offered = any(message[:2] == (number, run.queue_number) for message in world.messages)
        is_held = any(one.run == number for one in world.runners)
        is_ending = any(end[0] == number for end in world.ended)
        if run.status.is_terminal or run.queue_number == 0 or is_offered or is_held or is_ending:
            continue
        queue_number = catalog.queued(_state(run), NOW).queue_number
        yield (
            "silent run is queued again",
            world._replace(
                runs=_replaced(world.runs, number, run._replace(queue_number=queue_number)),
                messages=_sorted((*world.messages, (number, queue_number, READY))),
            ),
        )


def _intruders(world: World) -> Iterator[Step]:
    if world.faults.late_files:
        faults = world.faults._replace(late_files=world.faults.late_files - 1)
        yield "! a file is replaced", world._replace(faults=faults, a=world.a + 1)
        yield "! a late file arrives", world._replace(faults=faults, b=1)
    if not world.faults.cancels:
        return
    for number, run in enumerate(world.runs):
        if run.status.is_terminal or run.cancel_requested:
            continue
        after = world._replace(faults=world.faults._replace(cancels=world.faults.cancels - 1))
        if catalog.can_be_cancelled_at_once(_state(run)):
            yield f"! run {number + 1} is cancelled at once", _end(after, number, RunStatus.CANCELLED)
        else:
            runs = _replaced(after.runs, number, run._replace(cancel_requested=True))
            yield f"! run {number + 1} is to be cancelled", after._replace(runs=runs)


# How the parts hang together


def _end(world: World, number: int, status: RunStatus) -> World:
    """Catalog's transaction: the run ends, `run.finished` is said, the successor is queued."""
    runs = _replaced(world.runs, number, world.runs[number]._replace(status=status))
    messages = world.messages
    successor = runs[1]
    if number == 0 and successor.queue_number == 0 and not successor.status.is_terminal:
        runs = _replaced(runs, 1, successor._replace(queue_number=1))
        messages = _sorted((*messages, (1, 1, READY)))
    return world._replace(runs=runs, messages=messages, finished=_sorted((*world.finished, (number, status))))


def _closed(world: World, run: int, attempts: frozenset[int]) -> World:
    return world._replace(
        branches=tuple(
            branch._replace(is_open=False) if branch.run == run and branch.attempt in attempts else branch
            for branch in world.branches
        )
    )


def _acknowledge(world: World, one: Runner, others: tuple[Runner, ...]) -> World:
    messages = tuple(message for message in world.messages if message[:2] != (one.run, one.queue_number))
    return world._replace(messages=messages, runners=others)


def _go(world: World, others: tuple[Runner, ...], one: Runner) -> World:
    return world._replace(runners=_sorted((*others, one)))


def _held_in(world: World, zone: str) -> list[tuple[str, int]]:
    version = world.a if zone == "A" else world.b
    return [(zone, version)] if version else []


def _held_by(world: World, run: int, zone: str) -> list[tuple[str, int]]:
    return [
        (claim.file, claim.version)
        for claim in world.claims
        if claim.run == run and claim.file == zone and claim.state is ingest.ReadState.CLAIMED
    ]


def _record(world: World, run: int) -> ingest.RunRecord:
    return ingest.RunRecord(
        is_settled=run in world.settled,
        newest_attempt=world.asked_by[run],
        changed_attempt=world.changed_for[run],
    )


ZONE_FILES = {
    (zone, version): ingest.ZoneFile(UUID(int=number), key=zone, version_id=str(version))
    for number, (zone, version) in enumerate([("A", 1), ("A", 2), ("B", 1)])
}
FILE_NAMES = {file: name for name, file in ZONE_FILES.items()}


# The services' rules, on the model's values


@cache
def _state(run: Run) -> catalog.RunState:
    return catalog.RunState(
        status=run.status,
        attempt=run.attempt,
        queue_number=run.queue_number,
        cancel_requested=run.cancel_requested,
        ending=catalog.Ending(run.ending, "", ErrorKind.INTERNAL) if run.ending else None,
        lost_in_a_row=run.lost_in_a_row,
        head="0",
    )


@cache
def _judge(run: Run, queue_number: int, reason: ClaimReason, follows: int | None) -> tuple[str, Run]:
    claim = catalog.Claim(queue_number=queue_number, reason=reason, follows=follows, head="0")
    match catalog.judge_claim(_state(run), claim, NOW, LIMITS):
        case catalog.GiveAttempt(state):
            return "attempt", run._replace(
                status=state.status, attempt=state.attempt, lost_in_a_row=state.lost_in_a_row
            )
        case catalog.OrderEnd(state, ending):
            return "end", run._replace(ending=ending.status, lost_in_a_row=state.lost_in_a_row)
        case catalog.RefuseOver():
            return "over", run
        case catalog.RefuseSuperseded():
            return "superseded", run


@cache
def _after_check(run: Run, attempt: int) -> runner.Work | runner.Stop | runner.ClaimAgain:
    state = _state(run)
    return runner.after_check(
        AttemptState(is_newest=catalog.is_newest(state, attempt), is_wanted=catalog.is_wanted(state))
    )


_BRANCHES = [[runner.branch_name(run_id, attempt) for attempt in range(1, 10)] for run_id in RUN_IDS]


@cache
def _older(run: int, attempt: int) -> frozenset[int]:
    return _attempts(run, runner.older_branches(_BRANCHES[run], RUN_IDS[run], attempt))


@cache
def _to_end(run: int, attempt: int) -> frozenset[int]:
    return _attempts(run, runner.branches_to_end(_BRANCHES[run], RUN_IDS[run], attempt))


def _attempts(run: int, names: list[str]) -> frozenset[int]:
    return frozenset(_BRANCHES[run].index(name) + 1 for name in names)


def _replaced(values, index, value):  # type: ignore[no-untyped-def]
    return (*values[:index], value, *values[index + 1 :])


def _sorted(values):  # type: ignore[no-untyped-def]
    return tuple(sorted(values))
