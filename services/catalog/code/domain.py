"""The rules of drafts and publications (`pipelines.md`, Draft, publish, roll back)."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import unified_diff
from typing import Final, assert_never

from contracts.names import Qualified
from contracts.pipelines import (
    CheckedFile,
    FileDiff,
    FileProblem,
    FoundReference,
    PipelineType,
    PublishedFiles,
    Validation,
)
from services.catalog.code.paths import RESERVED
from shared.errors import Invalid, Unprocessable
from shared.similar import did_you_mean

MAX_FILES: Final = 500
"""Of a pipeline: the pins of all of them travel in one message."""


@dataclass(frozen=True)
class DraftFile:
    """A file of a draft: the current version of an object."""

    file: str
    """Below the pipeline's folder."""
    version_id: str
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class Draft:
    """What lies in a pipeline's folder."""

    files: Mapping[str, DraftFile] = field(default_factory=dict)
    contents: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """File and version id → what tells its content from another one, for all versions, old ones too."""
    ignored: Sequence[str] = ()
    """Objects in the folder that are no files of a pipeline, by their names."""

    @property
    def pins(self) -> dict[str, str]:
        """File → version id; `Unprocessable` if there are too many."""
        if len(self.files) > MAX_FILES:
            raise Unprocessable(f"a pipeline may have {MAX_FILES} files, this one has {len(self.files)}")
        return {file: self.files[file].version_id for file in sorted(self.files)}

    def differs_from(self, published: Mapping[str, str]) -> bool:
        """Whether a file was added, removed or changed; written again with the same content is no difference."""
        if self.files.keys() != published.keys():
            return True
        return any(self._is_changed(file, version_id) for file, version_id in published.items())

    def _is_changed(self, file: str, published_version: str) -> bool:
        current_version = self.files[file].version_id
        if current_version == published_version:
            return False
        published = self.contents.get((file, published_version))
        return published is None or published != self.contents[file, current_version]


def check_name(name: str) -> None:
    """Raise `Invalid` for a name that no pipeline may have (`system.md`, Storage layout)."""
    if name == RESERVED:
        raise Invalid(f"a pipeline cannot be called {RESERVED!r}: that is the folder of landing zones")


def starter_files(name: Qualified, kind: PipelineType) -> dict[str, str]:
    """The files of a new pipeline, which run as they are and show what comes next."""
    match kind:
        case PipelineType.SQL:
            file, sign, code = "pipeline.sql", "--", _sql_starter(name)
        case PipelineType.PYTHON:
            file, sign, code = "pipeline.py", "#", _python_starter(name)
        case _:
            assert_never(kind)
    config = f"""\
# How the result is written. A line `{sign} @merge_strategy: …` at the top of {file} would win over this file.
merge_strategy: full_refresh
"""
    return {file: code, "config.yaml": config}


def _sql_starter(name: Qualified) -> str:
    # Jinja renders what stands in SQL comments too, but leaves its own comments out.
    return f"""\
-- What this query returns becomes the table {name}.
{{#
  Next steps:
    read the files of a landing zone     from {{{{ landing_zone('orders') }}}}
    only those that were not read yet    from {{{{ landing_zone('orders', only='new') }}}}
    read another pipeline's table        from {{{{ ref('bronze.orders') }}}}
  A query under tests/quality/ that returns rows keeps a bad result from its table.
#}}
select
  1 as id,
  'hello' as greeting
"""


def _python_starter(name: Qualified) -> str:
    return f"""\
# What this function returns becomes the table {name}.
#
# Next steps:
#   read the files of a landing zone     ctx.duckdb.read_csv(ctx.landing_zone("orders"))
#   only those that were not read yet    ctx.landing_zone("orders", only="new")
#   read another pipeline's table        ctx.ref("bronze.orders")
# A query under tests/quality/ that returns rows keeps a bad result from its table.


def pipeline(ctx):
    return ctx.duckdb.sql("select 1 as id, 'hello' as greeting")
"""


def main_file(files: Collection[str]) -> str:
    """The file of a pipeline that holds its code."""
    return "pipeline.py" if "pipeline.py" in files and "pipeline.sql" not in files else "pipeline.sql"


def judge_publication(
    validation: Validation,
    *,
    pipeline: Qualified,
    draft: Draft,
    published_reads: Mapping[str, Sequence[str]],
    known: Collection[str],
    known_zones: Collection[str],
) -> PublishedFiles:
    """What publishing finds: what the runner found in the files, cycles as errors, what is unknown as warnings.

    `published_reads` says which tables each published pipeline reads, `known` which pipelines there are, `known_zones`
    which landing zones, as `namespace/name`.
    """
    main = main_file(draft.files)
    found = {file.path: file for file in validation.files}
    for one in references(validation, main):
        is_own = one.type == "table" and not one.path.startswith("tests/")
        cycle = way_back(one.name, str(pipeline), published_reads) if is_own else None
        if cycle:
            _add(found, one.path, errors=[_at(one, _about_cycle([str(pipeline), *cycle]))])
        elif one.type == "table" and one.name not in known:
            message = f"no pipeline writes {one.name}{did_you_mean(one.name, known)}"
            _add(found, one.path, warnings=[_at(one, message)])
        elif one.type == "landing_zone" and one.name not in known_zones:
            message = f"there is no landing zone {one.name} yet{did_you_mean(one.name, known_zones)}"
            _add(found, one.path, warnings=[_at(one, message)])
    return PublishedFiles(
        valid=all(file.valid for file in found.values()) and validation.valid,
        files=[*found.values(), *(_about_ignored(file) for file in draft.ignored)],
    )


def references(validation: Validation, main: str) -> list[FoundReference]:
    """What the files of a pipeline name, each with its place, or in the main file where that is not known."""
    known = {(one.type, one.name) for one in validation.references}
    tables = [FoundReference(type="table", name=name, path=main) for name in validation.reads_tables]
    zones = [
        FoundReference(type="landing_zone", name=f"{zone.namespace}/{zone.zone}", path=main)
        for zone in validation.reads_zones
    ]
    return [*validation.references, *(one for one in (*tables, *zones) if (one.type, one.name) not in known)]


def _at(reference: FoundReference, message: str) -> FileProblem:
    return FileProblem(line=reference.line, column=reference.column, message=message)


def _add(
    found: dict[str, CheckedFile],
    path: str,
    *,
    errors: Sequence[FileProblem] = (),
    warnings: Sequence[FileProblem] = (),
) -> None:
    """Put more problems to what was found in a file."""
    checked = found.get(path, CheckedFile(path=path, valid=True))
    found[path] = CheckedFile(
        path=path,
        valid=checked.valid and not errors,
        errors=[*checked.errors, *errors],
        warnings=[*checked.warnings, *warnings],
    )


def way_back(table: str, target: str, reads: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The chain of tables, from this one on, by which it reads the target; None if it does not."""
    chains = [[table]]
    seen = {table}
    while chains:
        chain = chains.pop(0)
        if chain[-1] == target:
            return chain
        for read in reads.get(chain[-1], ()):
            if read not in seen:
                seen.add(read)
                chains.append([*chain, read])
    return None


def _about_cycle(cycle: Sequence[str]) -> str:
    if len(cycle) == 2:
        return f"{cycle[0]} reads its own table by ref(): use this for what it held before"
    return f"a cycle of published pipelines: {' reads '.join(cycle)}"


def _about_ignored(file: str) -> CheckedFile:
    message = (
        "not published: files of a pipeline have a dot in their name, and plain letters, digits, '_', '-' and blanks"
    )
    return CheckedFile(path=file, valid=True, warnings=[FileProblem(message=message)])


def diffs(
    before: Mapping[str, str], after: Mapping[str, str], *, from_name: str, to_name: str, longest: int
) -> list[FileDiff]:
    """What differs between the texts of two sets of files, file by file; each diff `longest` characters at the most."""
    return [
        _diff(path, before.get(path), after.get(path), from_name, to_name, longest)
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def _diff(path: str, before: str | None, after: str | None, from_name: str, to_name: str, longest: int) -> FileDiff:
    lines = unified_diff(
        _lines(before or ""),
        _lines(after or ""),
        "/dev/null" if before is None else f"{from_name}/{path}",
        "/dev/null" if after is None else f"{to_name}/{path}",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return FileDiff(
        path=path,
        change="added" if before is None else "removed" if after is None else "changed",
        diff=text[:longest],
        is_whole=len(text) <= longest,
    )


def _lines(text: str) -> list[str]:
    """The lines as `diff` sees them: they end in line feeds, and in nothing else that Python takes for an end."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def without_nul(value: object) -> object:
    """The same JSON with NUL, which PostgreSQL cannot keep, replaced in every text."""
    match value:
        case str():
            return value.replace("\0", "�")
        case list():
            return [without_nul(item) for item in value]
        case dict():
            return {str(without_nul(key)): without_nul(item) for key, item in value.items()}
        case _:
            return value
