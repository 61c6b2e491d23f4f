"""What an author's Python reads: it asks while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from contracts.landing import ClaimedFile, ZoneForm
from contracts.names import Qualified
from services.runner.compile import Compiled
from services.runner.problems import WorkFailed
from services.runner.python.result import Given
from services.runner.python.rows import rows_of
from services.runner.python.source import NamedZone, Source
from services.runner.reading import Reading
from services.runner.workplace import Workplace
from shared.errors import Invalid


class NothingNew(Exception):
    """The code has asked for new files only, and there are none: nothing is written, whatever it made of that."""


class _Asked:
    """What the code has come to ask for."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.zones: set[NamedZone] = set()

    def relation_of(self, table: Qualified) -> str | None:
        try:
            return self._reading.relations.relation_of(table)
        except Invalid as error:
            raise LookupError(error.message) from error

    def note_table(self, table: Qualified) -> None:
        self._reading.note_tables([table])

    def files_of(self, namespace: str, zone: str, form: ZoneForm) -> list[ClaimedFile] | None:
        self.zones.add(NamedZone(namespace, zone, form))
        content = self._reading.content_of(namespace, zone, form)
        return None if content is None else list(content.files)

    def meant(self, kind: Literal["table", "landing_zone"], name: str) -> str:
        return self._reading.meant(kind, name)


@contextmanager
def rows_of_code(workplace: Workplace, reading: Reading, compiled: Compiled, source: Source) -> Iterator[Given]:
    """Run a pipeline's Python and give its rows, to be read once in the block.

    `NothingNew` if it asked for new files only, and there are none. The process is not to be used for anybody else's
    work after that.
    """
    # Its branch is made, and the run still wanted, before any of it is run.
    reading.relations.locate({reading.pipeline})
    asked = _Asked(reading)
    limit = compiled.config.memory_limit or workplace.memory_limit_bytes
    connection = workplace.engines.open_for_code(limit)
    try:
        with rows_of(
            source,
            connection,
            facts=compiled.facts,
            config=compiled.config,
            asked=asked,
            bucket=workplace.bucket,
            tell=workplace.parent.log,
        ) as rows:
            if reading.has_no_new_files:
                raise NothingNew
            yield rows
    except WorkFailed as error:
        has_asked_all = source.names_all_zones and asked.zones.issuperset(source.zones)
        if not (reading.has_no_new_files and has_asked_all):
            raise
        workplace.parent.log(error.message, "warning")
        raise NothingNew from error
