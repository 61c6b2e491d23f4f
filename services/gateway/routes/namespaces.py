"""Namespaces."""

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from contracts.namespaces import (
    CreateNamespace,
    DeleteNamespace,
    ListNamespaces,
    Namespace,
    Namespaces,
    UpdateNamespace,
)
from services.gateway.bodies import NamespaceChange, NewNamespace
from services.gateway.dependencies import Asker, Noted, Page
from services.gateway.edge import ANONYMOUS


class NamespaceRoutes(Controller):
    """The folders at the top."""

    path = "/namespaces"
    tags = ("Namespaces",)

    @get()
    async def list_namespaces(self, bus: Asker, page: Page) -> Namespaces:
        """List namespaces by name."""
        return await bus.ask(ListNamespaces(**page.model_dump()))

    @post(opt={"audit": "namespace.create"})
    async def create_namespace(self, bus: Asker, notes: Noted, data: JSONBody[NewNamespace]) -> Namespace:
        """Make a namespace."""
        notes.resource = data.name
        created_by = None if notes.caller == ANONYMOUS else notes.caller
        return await bus.ask(CreateNamespace(**data.given(), created_by=created_by))

    @put("/{namespace:str}", status_code=204, opt={"audit": "namespace.update"})
    async def update_namespace(self, bus: Asker, namespace: FromPath[str], data: JSONBody[NamespaceChange]) -> None:
        """Describe a namespace anew."""
        await bus.ask(UpdateNamespace(name=namespace, description=data.description))

    @delete("/{namespace:str}", opt={"audit": "namespace.delete"})
    async def delete_namespace(self, bus: Asker, namespace: FromPath[str], force: FromQuery[bool] = False) -> None:
        """Delete a namespace; with `force` also the pipelines and zones that it holds. Its tables stay."""
        await bus.ask(DeleteNamespace(name=namespace, force=force))
