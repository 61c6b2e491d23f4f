"""What an author's Python works with: `ctx`, and the same names as globals of a script (`pipelines.md`, Python)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from threading import RLock
from types import ModuleType
from typing import Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

import duckdb
import pyarrow as pa

from contracts.landing import ClaimedFile, ZoneForm
from contracts.names import Qualified
from services.runner.config import Config
from services.runner.engine.binding import escaped
from services.runner.engine.statement import identifier, string
from services.runner.python.output import RunLog
from services.runner.python.source import MODULE, PYTHON_FILE, QUOTED, Source, named_zone
from services.runner.template import Facts, Flag, table_name
from shared.similar import expected

_MISSING: Final = object()


class Asked(Protocol):
    """Whoever knows where a run's tables and files are."""

    def relation_of(self, table: Qualified) -> str | None:
        """A table or a view as a relation in SQL; None if there is none. `LookupError` for a broken view."""

    def note_table(self, table: Qualified) -> None:
        """Note that the run reads a table."""

    def files_of(self, namespace: str, zone: str, form: ZoneForm) -> list[ClaimedFile] | None:
        """The files that the run reads of a zone; None if there is no such zone."""

    def meant(self, kind: Literal["table", "landing_zone"], name: str) -> str:
        """What may have been meant by a name that there is not, as the end of a message."""


class Files(list[str]):
    """The addresses of files: a list, and in the text of a query a list of SQL's, with or without quotes around it.

    What DuckDB would take for a pattern is escaped in them.
    """

    def __format__(self, spec: str) -> str:
        return str(self)

    def __str__(self) -> str:
        return "[" + ", ".join(string(address) for address in self) + "]"


class NoTable:
    """The pipeline's own table before there is one: false, and an error that says so for whatever else is done."""

    def __init__(self, table: Qualified) -> None:
        self._table = table

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise self._missing()

    def __format__(self, spec: str) -> str:
        raise self._missing()

    def __str__(self) -> str:
        raise self._missing()

    def _missing(self) -> LookupError:
        return LookupError(f"there is no table {str(self._table)!r} yet; look first: `if is_incremental():`")


class Settings(Mapping[str, Any]):
    """The pipeline's settings, as `config["tags"]` or `config.tags`."""

    def __init__(self, config: Config) -> None:
        self._values = asdict(config)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError as error:
            raise AttributeError(f"the pipeline has no setting {key!r}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Context:
    """What a run gives to the code of its pipeline."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        facts: Facts,
        config: Config,
        asked: Asked,
        log: RunLog,
        bucket: str,
    ) -> None:
        self._facts = facts
        self._asked = asked
        self._bucket = bucket
        self._watermark_column = config.watermark_column
        self._tables: dict[Qualified, duckdb.DuckDBPyRelation] = {}
        self._asking = RLock()
        self.duckdb = connection
        self.config = Settings(config)
        self.log = log
        self.run_id = str(facts.run_id)
        self.run_started_at: datetime = facts.run_started_at
        self.namespace, self.layer, self.name = facts.pipeline
        self.is_incremental = Flag(facts.is_incremental)

    def __getattr__(self, name: str) -> Any:
        known = [one for one in (*vars(self), *vars(Context)) if not one.startswith("_")]
        raise AttributeError(f"ctx has no {name!r}{expected(name, known)}")

    def ref(self, name: str) -> duckdb.DuckDBPyRelation:
        """The table of `layer.name`, or of `namespace.layer.name`, as of this run's branch.

        In the text of a query it stands for the table. `LookupError` if there is none.
        """
        table = table_name(_text("ref", name, "bronze.orders"), self._facts.pipeline.namespace)
        relation = self._relation(table)
        if relation is None:
            raise LookupError(f"there is no table {str(table)!r}{self._asked.meant('table', str(table))}")
        self._asked.note_table(table)
        return relation

    @property
    def this(self) -> duckdb.DuckDBPyRelation | NoTable:
        """The pipeline's own table, as the branch has it."""
        relation = self._relation(self._facts.pipeline)
        return NoTable(self._facts.pipeline) if relation is None else relation

    def landing_zone(self, zone: str, only: str = "all") -> Files:
        """The addresses of the files in a zone; with `only="new"` of those that no successful run has read."""
        named = named_zone(_text("landing_zone", zone, "orders"), only, self._facts.pipeline.namespace)
        with self._asking:
            files = self._asked.files_of(named.namespace, named.zone, named.form)
        if files is None:
            name = f"{named.namespace}/{named.zone}"
            raise LookupError(f"there is no landing zone {name!r}{self._asked.meant('landing_zone', name)}")
        return Files(f"s3://{self._bucket}/{escaped(file.key)}" for file in files)

    @cached_property
    def watermark_value(self) -> Any:
        """The greatest value of `watermark_column` in the pipeline's table; None while there is none."""
        table = self._relation(self._facts.pipeline)
        if self._watermark_column is None or table is None:
            return None
        row = table.aggregate(f"max({identifier(self._watermark_column)})").fetchone()
        return row[0] if row is not None else None

    def var(self, name: str, default: Any = _MISSING) -> Any:
        """A parameter of the run; `LookupError` if it was given none of that name and there is no default."""
        if name in self._facts.parameters:
            return self._facts.parameters[name]
        if default is _MISSING:
            raise LookupError(f"the run has no parameter {name!r}, and var({name!r}) has no default")
        return default

    def _relation(self, table: Qualified) -> duckdb.DuckDBPyRelation | None:
        with self._asking:
            if table in self._tables:
                return self._tables[table]
            relation = self._asked.relation_of(table)
            if relation is None:
                return None
            self._tables[table] = _named(self.duckdb, table, relation)
            return self._tables[table]


def _text(function: str, name: object, example: str) -> str:
    """A name that a function was given; `TypeError` if it is no text."""
    if not isinstance(name, str):
        raise TypeError(f"{function}() takes a name as text, as {function}({example!r}), not {name!r}")
    return name


# Relations as text


_texts: WeakKeyDictionary[duckdb.DuckDBPyRelation, str] = WeakKeyDictionary()
"""What stands for a relation in the text of a query, for those that `ref` gave."""


def _named(connection: duckdb.DuckDBPyConnection, table: Qualified, source: str) -> duckdb.DuckDBPyRelation:
    """A view of a table, under a name by which queries can call its columns."""
    schema = identifier(f"{table.namespace}.{table.layer}")
    text = f"{schema}.{identifier(table.name)}"
    connection.execute(f"create schema if not exists {schema}")
    connection.execute(f"create or replace view {text} as from {source}")
    relation = connection.sql(f"from {text}")
    _texts[relation] = text
    return relation


def teach_relations() -> None:
    """Have relations that `ref` gave stand for their tables in texts. Once in a process that runs an author's code."""
    shown = duckdb.DuckDBPyRelation.__str__

    def text(relation: duckdb.DuckDBPyRelation) -> str:
        return _texts.get(relation) or shown(relation)

    methods: dict[str, Callable[..., str]] = {
        "__str__": text,
        "__format__": lambda relation, spec: text(relation),
        "__add__": lambda relation, more: text(relation) + more,
        "__radd__": lambda relation, before: before + text(relation),
    }
    for name, method in methods.items():
        setattr(duckdb.DuckDBPyRelation, name, method)


def _quoted(value: object) -> str:
    """What stands alone between single quotes in an f-string: a table or files without them."""
    is_ours = isinstance(value, Files | NoTable) or (isinstance(value, duckdb.DuckDBPyRelation) and value in _texts)
    return f"{value}" if is_ours else f"'{value}'"


# Globals


def module_of(source: Source, context: Context) -> ModuleType:
    """The module that an author's code runs as, with the names of a run as globals."""
    module = ModuleType(MODULE)
    names = {
        "__file__": PYTHON_FILE,
        QUOTED: _quoted,
        "ctx": context,
        "duckdb": context.duckdb,
        "duckdb_conn": context.duckdb,
        "pa": pa,
        "log": context.log,
        "ref": context.ref,
        "landing_zone": context.landing_zone,
        "is_incremental": context.is_incremental,
        "var": context.var,
        "run_id": context.run_id,
        "run_started_at": context.run_started_at,
        "config": context.config,
        "namespace": context.namespace,
        "layer": context.layer,
        "name": context.name,
    }
    # These cost a look at the table.
    for costly in ("this", "watermark_value"):
        if source.names(costly):
            names[costly] = getattr(context, costly)
    vars(module).update(names)
    return module
