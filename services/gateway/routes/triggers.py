"""The triggers of a pipeline."""

from uuid import UUID

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, JSONBody

from contracts.triggers import (
    CreateTrigger,
    DeleteTrigger,
    FindTrigger,
    FireTrigger,
    ListDecisions,
    ListTriggers,
    Trigger,
    TriggerDecision,
    TriggerDecisions,
    Triggers,
    UpdateTrigger,
)
from services.gateway.bodies import NewTrigger, TriggerChange
from services.gateway.dependencies import Asker, Noted, Page

_ONE = "/{trigger_id:uuid}"


class TriggerRoutes(Controller):
    """What wakes a pipeline, and why it did or did not."""

    path = "/pipelines/{namespace:str}/{layer:str}/{name:str}/triggers"
    tags = ("Triggers",)

    @get()
    async def list_triggers(
        self, bus: Asker, page: Page, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> Triggers:
        """List the triggers of a pipeline."""
        pipeline = {"namespace": namespace, "layer": layer, "name": name}
        return await bus.ask(ListTriggers.model_validate(page.model_dump() | pipeline))

    @post(opt={"audit": "trigger.create"})
    async def create_trigger(
        self,
        bus: Asker,
        notes: Noted,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[NewTrigger],
    ) -> Trigger:
        """Make a trigger for a pipeline."""
        pipeline = {"namespace": namespace, "layer": layer, "name": name}
        query = CreateTrigger.model_validate(data.given() | pipeline)
        notes.resource = f"{namespace}/{layer}/{name}/{query.id}"
        return await bus.ask(query)

    @get(_ONE)
    async def find_trigger(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        trigger_id: FromPath[UUID],
    ) -> Trigger:
        """Show a trigger."""
        return await bus.ask(FindTrigger.model_validate(_one(namespace, layer, name, trigger_id)))

    @put(_ONE, opt={"audit": "trigger.update"})
    async def update_trigger(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        trigger_id: FromPath[UUID],
        data: JSONBody[TriggerChange],
    ) -> Trigger:
        """Change what is given of a trigger; disabling it skips the firing that waits."""
        return await bus.ask(UpdateTrigger.model_validate(data.given() | _one(namespace, layer, name, trigger_id)))

    @delete(_ONE, opt={"audit": "trigger.delete"})
    async def delete_trigger(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        trigger_id: FromPath[UUID],
    ) -> None:
        """Remove a trigger with its decisions."""
        await bus.ask(DeleteTrigger.model_validate(_one(namespace, layer, name, trigger_id)))

    @get(f"{_ONE}/decisions")
    async def list_decisions(
        self,
        bus: Asker,
        page: Page,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        trigger_id: FromPath[UUID],
    ) -> TriggerDecisions:
        """List what a trigger decided on each event, and why; the newest first."""
        return await bus.ask(ListDecisions.model_validate(page.model_dump() | _one(namespace, layer, name, trigger_id)))

    @post(f"{_ONE}/fire", status_code=202, opt={"audit": "trigger.fire"})
    async def fire_trigger(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        trigger_id: FromPath[UUID],
    ) -> TriggerDecision:
        """Fire a trigger by hand; its cooldown holds."""
        return await bus.ask(FireTrigger.model_validate(_one(namespace, layer, name, trigger_id)))


def _one(namespace: str, layer: str, name: str, trigger_id: UUID) -> dict[str, str | UUID]:
    return {"namespace": namespace, "layer": layer, "name": name, "trigger_id": trigger_id}
