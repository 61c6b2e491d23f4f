"""The table of services, and how any of them live together in one process."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, get_type_hints

import structlog
import uvloop

from infra.alive import stay_alive
from infra.failures import unwrapped
from shared.background import end
from shared.bus import Bus, declare
from shared.errors import Invalid
from shared.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True)
class Service:
    """A service by the module that has its `serve` and its `wire`, which is imported when it is first needed."""

    name: str

    def load(self) -> None:
        """Import all that the service needs; it takes a second for some."""
        import_module(self._module)

    def serve(self, settings: Settings) -> AbstractAsyncContextManager[object]:
        """The service, running for as long as the block that it is entered by."""
        serve: Callable[[Settings], AbstractAsyncContextManager[object]] = import_module(self._module).serve
        return serve(settings)

    def declare(self) -> Bus:
        """What the service hears, says and answers, on a bus that is never connected."""
        wire = import_module(self._module).wire
        # `wire(bus, service)` only registers methods: instances without their resources are enough.
        kinds = [hint for name, hint in get_type_hints(wire).items() if name not in ("bus", "return")]
        bus = declare(self.name)
        wire(bus, *(object.__new__(kind) for kind in kinds))
        return bus

    @property
    def _module(self) -> str:
        return f"services.{self.name}.service"


# They stop from the last to the first: who asks stops before who answers.
SERVICES: Final[Mapping[str, Service]] = {
    name: Service(name) for name in ("catalog", "ingest", "query", "runner", "scheduler", "trigger", "gateway")
}


@asynccontextmanager
async def serving(names: Iterable[str], settings: Settings) -> AsyncIterator[Mapping[str, Any]]:
    """Run these services in this process until the block is left; gives name → what the service yields.

    They start together and stop one after the other, in the reverse order of the table. One that fails cancels the
    block, stops the others and is raised. `Invalid` for a name that is no service.
    """
    wanted = set(names)
    if unknown := wanted - SERVICES.keys():
        raise Invalid(f"no service is called {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            running = {name: _Running(SERVICES[name].serve(settings)) for name in SERVICES if name in wanted}
            for service in running.values():
                service.start_in(tasks)
            try:
                for service in running.values():
                    await service.started.wait()
                log.info("serving", services=list(running))
                yield {name: service.value for name, service in running.items()}
            finally:
                for service in reversed(running.values()):
                    await service.stop()


async def run(names: Iterable[str], settings: Settings) -> None:
    """Run these services in this process until the task is cancelled."""
    async with serving(names, settings):
        await stay_alive(settings)


def live(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a process's one coroutine; SIGINT and SIGTERM cancel it once, and it may take its time to stop in order."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(main))


async def _until_signalled(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    this_one = asyncio.current_task()
    task = asyncio.create_task(main())
    signalled = asyncio.Event()

    def stop() -> None:
        # A second signal, as wrappers send that pass on what the terminal has sent already, must not break the order.
        if not signalled.is_set():
            signalled.set()
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled.is_set():
            raise
    finally:
        # Cancelled once, as by the runner that closes, one that loses it would keep the process for ever.
        await end(asyncio.all_tasks() - {this_one})


@dataclass
class _Running:
    """One service in a task of its own: what it enters has to be left in the same task."""

    service: AbstractAsyncContextManager[object]
    started: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    value: object = None
    """What it yielded when it had started."""

    def start_in(self, tasks: asyncio.TaskGroup) -> None:
        self.task = tasks.create_task(self._live())

    async def _live(self) -> None:
        async with self.service as value:
            self.value = value
            self.started.set()
            await self.stopping.wait()

    async def stop(self) -> None:
        if self.task is None:
            return
        if self.started.is_set():
            self.stopping.set()
            await asyncio.wait([self.task])
        else:
            await end({self.task})
