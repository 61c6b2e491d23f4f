"""Namespaces: what is asked about the folders at the top, which hold pipelines and landing zones."""

from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import Field

from contracts.messages import Message, Query
from contracts.names import Name
from contracts.paging import PageRequest
from contracts.text import Text

DEFAULT_NAMESPACE: Final = "default"
"""It exists from the start, and cannot be deleted."""


class Namespace(Message):
    """A namespace as the API shows it."""

    name: str
    description: str
    created_by: str | None
    created_at: datetime


class FoundNamespace(Namespace):
    """A namespace, and which one of its name."""

    id: UUID | None = None
    """Its own: another namespace of its name, made when it was deleted, has another."""


class Namespaces(Message):
    """A page of namespaces."""

    namespaces: list[Namespace]
    total: int
    next_cursor: str | None = None


class ListNamespaces(Query[Namespaces], PageRequest, subject="catalog.list_namespaces"):
    """List namespaces by name."""


class FindNamespace(Query[FoundNamespace], subject="catalog.find_namespace"):
    """Show a namespace; NotFound if there is none of that name."""

    name: Name


class CreateNamespace(Query[Namespace], subject="catalog.create_namespace"):
    """Make a namespace; AlreadyExists for a name that is taken."""

    name: Name
    description: Text = Field(default="", max_length=2000)
    created_by: Text | None = Field(default=None, max_length=200)


class UpdateNamespace(Query[Namespace], subject="catalog.update_namespace"):
    """Describe a namespace anew; NotFound if there is none of that name."""

    name: Name
    description: Text = Field(max_length=2000)


class DeleteNamespace(Query[None], subject="catalog.delete_namespace"):
    """Delete a namespace; its tables stay.

    Forbidden for `default`, Conflict while it holds pipelines or zones, unless `force` deletes them with it.
    """

    name: Name
    force: bool = False
