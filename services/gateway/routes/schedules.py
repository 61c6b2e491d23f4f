"""Schedules."""

from uuid import UUID

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, JSONBody

from contracts.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FindSchedule,
    ListSchedules,
    Schedule,
    Schedules,
    UpdateSchedule,
)
from services.gateway.bodies import NewSchedule, ScheduleChange
from services.gateway.dependencies import Asker, Noted, Page

_ONE = "/{schedule_id:uuid}"


class ScheduleRoutes(Controller):
    """What runs a pipeline by the clock."""

    path = "/schedules"
    tags = ("Schedules",)

    @get()
    async def list_schedules(self, bus: Asker, page: Page) -> Schedules:
        """List schedules."""
        return await bus.ask(ListSchedules(**page.model_dump()))

    @post(opt={"audit": "schedule.create"})
    async def create_schedule(self, bus: Asker, notes: Noted, data: JSONBody[NewSchedule]) -> Schedule:
        """Run a pipeline by the clock."""
        query = CreateSchedule(**data.given())
        notes.resource = f"{data.namespace}/{data.layer}/{data.pipeline}/{query.id}"
        return await bus.ask(query)

    @get(_ONE)
    async def find_schedule(self, bus: Asker, schedule_id: FromPath[UUID]) -> Schedule:
        """Show a schedule with its next times."""
        return await bus.ask(FindSchedule(schedule_id=schedule_id))

    @put(_ONE, opt={"audit": "schedule.update"})
    async def update_schedule(
        self, bus: Asker, schedule_id: FromPath[UUID], data: JSONBody[ScheduleChange]
    ) -> Schedule:
        """Change what is given of a schedule."""
        return await bus.ask(UpdateSchedule(schedule_id=schedule_id, **data.given()))

    @delete(_ONE, opt={"audit": "schedule.delete"})
    async def delete_schedule(self, bus: Asker, schedule_id: FromPath[UUID]) -> None:
        """Remove a schedule."""
        await bus.ask(DeleteSchedule(schedule_id=schedule_id))
