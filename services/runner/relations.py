"""What the names in a run's queries stand for on its branch: tables, and views with what they read in turn."""

from collections.abc import Callable, Collection

import duckdb

from contracts.names import Qualified
from services.runner.engine.statement import Statement
from services.runner.engine.views import inlined, names_read
from services.runner.frames import Locations
from services.runner.problems import AuthorError
from shared.errors import Invalid


class Relations:
    """Tables and views by name, each asked for once: a run sees one state of them, and what it changes itself."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, ask: Callable[[list[str]], Locations]) -> None:
        self._connection = connection
        self._ask = ask
        self._locations: dict[Qualified, str | None] = {}
        self._views: dict[Qualified, str] = {}
        self._alone: dict[Qualified, str] = {}
        """Tables that are read as something else than what is at their location, with the same rows."""

    def location_of(self, table: Qualified) -> str | None:
        """Where the metadata of a table is; None if there is no such table, or a view is."""
        self.locate({table})
        return self._locations[table]

    def is_view(self, name: Qualified) -> bool:
        """Whether a name stands for a view."""
        self.locate({name})
        return name in self._views

    def locate(self, names: Collection[Qualified]) -> None:
        """Ask for what is not known yet, and for what the views among it read."""
        unknown = sorted(str(name) for name in set(names) - self._locations.keys())
        while unknown:
            answer = self._ask(unknown)
            self._locations |= {Qualified.parse(name): location for name, location in answer.locations.items()}
            views = {Qualified.parse(name): view.query for name, view in answer.views.items()}
            self._views |= views
            read = {name for sql in views.values() for name in names_read(self._connection, sql)}
            unknown = sorted(str(name) for name in read - self._locations.keys())

    def become_table(self, name: Qualified, location: str | None, rows_alone: str | None) -> None:
        """Take note of a table that the run has written, and of its rows as a relation, where there is one."""
        self._locations[name] = location
        if rows_alone is not None:
            self._alone[name] = rows_alone
        self._views.pop(name, None)

    def become_view(self, name: Qualified, sql: str) -> None:
        """Take note of a view that the run puts on the branch."""
        self.locate(names_read(self._connection, sql))
        self._locations[name] = None
        self._views[name] = sql

    def of(self, statement: Statement) -> dict[Qualified, str]:
        """What a statement names, as relations in SQL; those that do not exist are left out.

        `AuthorError` where a view cannot be read.
        """
        try:
            return self._of(statement.tables_named)
        except Invalid as error:
            use = next(use for use in statement.tables if use.table in self._views)
            raise AuthorError(statement.problem(error.message, use.start)) from error

    def relation_of(self, name: Qualified) -> str | None:
        """A table or a view as a relation in SQL, or None; `Invalid` for a view that cannot be read."""
        return self._of([name]).get(name)

    def _of(self, names: Collection[Qualified]) -> dict[Qualified, str]:
        self.locate(names)
        tables = {name: f"iceberg_scan('{location}')" for name, location in self._locations.items() if location}
        tables |= self._alone
        views = inlined(self._connection, self._below(names), tables)
        return {name: found for name, found in (tables | views).items() if name in names}

    def _below(self, names: Collection[Qualified]) -> dict[Qualified, str]:
        """The views among these names, and those that they read in turn, with their queries."""
        found: dict[Qualified, str] = {}
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in self._views and name not in found:
                found[name] = self._views[name]
                pending += names_read(self._connection, found[name])
        return found
