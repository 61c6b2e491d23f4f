"""A query as it stands in no file and runs nowhere: tables and landing zones under their whole names."""

from services.runner.engine.binding import Edit, edited
from services.runner.engine.statement import Statement, identifier


def in_full(statement: Statement) -> str:
    """The query with `"namespace"."layer"."name"` for each table, and `"namespace/name"` for each zone's files."""
    edits = []
    for use in statement.tables:
        alias = "" if use.has_alias else f" as {identifier(use.table.name)}"
        edits.append(Edit(use.start, use.end, ".".join(identifier(part) for part in use.table) + alias))
    edits += [Edit(use.start, use.end, identifier(use.table.name)) for use in statement.columns]
    for zone in statement.zones:
        start, end = zone.reader or (zone.start, zone.end)
        alias = "" if zone.has_alias else f" as {identifier(zone.reader_name or zone.call.zone)}"
        edits.append(Edit(start, end, identifier(f"{zone.call.namespace}/{zone.call.zone}") + alias))
    return edited(statement.sql, sorted(edits, key=lambda edit: (edit.start, edit.end)))
