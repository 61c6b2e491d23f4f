"""The rules of pipeline code: paths, headers of tests, drafts, publications, pages."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Literal

import duckdb
import jinja2
import pytest
import yaml

from contracts.audit import AuditEntry
from contracts.files import MAX_CODE_BYTES, WriteCodeFile
from contracts.names import Qualified
from contracts.paging import PageRequest
from contracts.pipelines import CheckedFile, FileProblem, FoundReference, PipelineType, PublishedFiles, Validation
from contracts.reports import Severity
from services.catalog.code import domain
from services.catalog.code.domain import Draft, DraftFile
from services.catalog.code.headers import read_header, with_header
from services.catalog.code.paths import (
    check_prefix,
    code_path,
    exclusions,
    file_type,
    is_excluded,
    listing_prefix,
    name_of_test,
)
from shared.errors import Invalid, Unprocessable
from shared.pages import cursor_after, fitting

ORDERS = Qualified("default", "bronze", "orders")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def draft_of(files: dict[str, tuple[str, str]], *, older: dict[tuple[str, str], str] | None = None) -> Draft:
    """A draft of these files: name → version id and content."""
    return Draft(
        {file: DraftFile(file, version, len(content), NOW) for file, (version, content) in files.items()},
        {(file, version): content for file, (version, content) in files.items()} | (older or {}),
    )


# Paths


@pytest.mark.parametrize(
    "file", ["pipeline.sql", "config.yaml", "tests/quality/no_nulls.sql", "README.md", "docs/a b.md", ".gitkeep"]
)
def test_a_path_names_a_pipeline_and_its_file(file: str) -> None:
    found = code_path(f"default/pipelines/bronze/orders/{file}")

    assert found.pipeline == ORDERS
    assert found.file == file
    assert found.key == f"default/pipelines/bronze/orders/{file}"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "pipeline.sql",
        "/default/pipelines/bronze/orders/pipeline.sql",
        "default/pipelines/bronze/orders",
        "default/pipelines/bronze/orders/",
        "default/pipelines/bronze/orders/../other/pipeline.sql",
        "default/pipelines/bronze/orders/./pipeline.sql",
        "default/pipelines/bronze/orders//pipeline.sql",
        "default/pipelines/bronze/orders/a\\b.sql",
        "default/pipelines/bronze/orders/pipeline.sql\0",
        "default/pipelines/bronze/orders/pipeline.sql\n",
        "default/pipelines/tin/orders/pipeline.sql",
        "default/pipelines/bronze/Orders/pipeline.sql",
        "default/landing/orders/x.csv",
        "default/bronze/orders/data/x.parquet",
        "default.bronze/pipelines/x/y/pipeline.sql",
        f"default/pipelines/bronze/orders/{'x' * 200}.sql",
    ],
)
def test_what_is_no_file_of_a_pipeline_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        code_path(path)


def test_no_folder_of_a_pipeline_is_called_like_that_of_landing_zones() -> None:
    with pytest.raises(Invalid, match="landing"):
        code_path("default/pipelines/bronze/orders/landing/pipeline.sql")

    assert code_path("default/pipelines/bronze/orders/tests/quality/landing.sql").file == "tests/quality/landing.sql"


@pytest.mark.parametrize("file", ["tests", "tests.d/x.sql", "pipeline.sql/x.sql"])
def test_no_file_can_hide_a_folder(file: str) -> None:
    with pytest.raises(Invalid, match="dot"):
        code_path(f"default/pipelines/bronze/orders/{file}")


def test_files_have_types() -> None:
    files = ["pipeline.sql", "pipeline.py", "config.yaml", "tests/quality/x.sql", "tests/x.sql", "sub/pipeline.sql"]

    types = [file_type(file) for file in files]

    assert types == ["pipeline-sql", "pipeline-py", "config", "test", "file", "file"]
    assert name_of_test("tests/quality/no_nulls.sql") == "no_nulls"
    assert name_of_test("tests/quality/deeper/no_nulls.sql") is None


@pytest.mark.parametrize("prefix", ["", "de", "default/", "default/pip", "default/pipelines/", "default/pipelines/gol"])
def test_a_listing_may_begin_anywhere_in_the_folders_of_pipelines(prefix: str) -> None:
    check_prefix(prefix)

    assert listing_prefix("default", prefix) == max(prefix, "default/pipelines/", key=len)
    assert listing_prefix("other", "default/") is None


@pytest.mark.parametrize("prefix", ["default/landing/", "default/x", "/default", "default/../x", "a\\b", "a\0"])
def test_a_listing_stays_in_the_folders_of_pipelines(prefix: str) -> None:
    with pytest.raises(Invalid):
        check_prefix(prefix)


def test_paths_are_left_out_by_name_glob_or_folder() -> None:
    path = "default/pipelines/bronze/orders/tests/quality/x.sql"

    for text in ["tests", "*.sql", " a, x.sql ", "default/pipelines/bronze/orders/", "default/*"]:
        assert is_excluded(path, exclusions(text)), text
    for text in ["", " , ", "test", "*.py", "default/pipelines/bronze/order"]:
        assert not is_excluded(path, exclusions(text)), text


# Headers of tests


def test_the_header_of_a_test_is_read() -> None:
    header = read_header(
        "\n-- @Severity: warn\n-- a remark\n-- @description   No order without a customer: none\r\n"
        "-- @tags: a, b ,\n-- @remediation: ask sales\nselect 1 -- @severity: error\n-- @tags: c"
    )

    assert header.severity is Severity.WARN
    assert header.description == "No order without a customer: none"
    assert header.tags == ("a", "b")
    assert header.remediation == "ask sales"


def test_a_test_blocks_unless_it_says_otherwise() -> None:
    assert read_header("select 1").severity is Severity.ERROR
    assert read_header("-- @severity: wran\nselect 1").severity is Severity.ERROR


def test_what_is_given_replaces_what_the_header_said() -> None:
    sql = "-- @severity: error\n-- @tags: old\n-- why\nselect '\u2028-- @tags: kept'\n-- @severity: kept\n"

    written = with_header(sql, severity=Severity.WARN, description="two\nlines", tags=None, remediation=None)

    assert written == (
        "-- @severity: warn\n-- @description: two lines\n-- @tags: old\n-- why\n"
        "select '\u2028-- @tags: kept'\n-- @severity: kept\n"
    )
    assert read_header(written).tags == ("old",)


def test_a_test_without_a_header_stays_without_one() -> None:
    assert with_header("select 1", severity=None, description=None, tags=None, remediation=None) == "select 1\n"


# Drafts


def test_a_draft_that_was_never_published_is_dirty() -> None:
    assert draft_of({"pipeline.sql": ("1", "a")}).differs_from({})


def test_a_draft_is_clean_while_it_holds_what_is_published() -> None:
    draft = draft_of({"pipeline.sql": ("1", "a"), "config.yaml": ("7", "c")})

    assert not draft.differs_from({"pipeline.sql": "1", "config.yaml": "7"})


@pytest.mark.parametrize(
    "files",
    [
        {"pipeline.sql": ("2", "b")},
        {},
        {"pipeline.sql": ("1", "a"), "config.yaml": ("7", "c")},
        {"pipeline.py": ("1", "a")},
    ],
)
def test_a_draft_with_a_changed_missing_or_added_file_is_dirty(files: dict[str, tuple[str, str]]) -> None:
    draft = draft_of(files, older={("pipeline.sql", "1"): "a"})

    assert draft.differs_from({"pipeline.sql": "1"})


def test_writing_back_what_was_published_makes_a_draft_clean() -> None:
    draft = draft_of({"pipeline.sql": ("3", "a")}, older={("pipeline.sql", "1"): "a", ("pipeline.sql", "2"): "b"})

    assert not draft.differs_from({"pipeline.sql": "1"})
    assert draft.differs_from({"pipeline.sql": "0"}), "a published version that is gone cannot be the same"


def test_the_pins_of_a_draft_are_limited() -> None:
    files = {f"f{number}.sql": ("1", "a") for number in range(domain.MAX_FILES + 1)}

    assert draft_of({"b.sql": ("2", ""), "a.sql": ("1", "")}).pins == {"a.sql": "1", "b.sql": "2"}
    with pytest.raises(Unprocessable, match="501"):
        _ = draft_of(files).pins


def test_a_pipeline_may_not_be_called_landing() -> None:
    with pytest.raises(Invalid, match="landing"):
        domain.check_name("landing")
    domain.check_name("landings")


def test_the_starter_runs_as_it_is() -> None:
    files = domain.starter_files(ORDERS, PipelineType.SQL)

    sql = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True).from_string(files["pipeline.sql"])
    assert duckdb.sql(sql.render()).fetchall() == [(1, "hello")]
    assert yaml.safe_load(files["config.yaml"]) == {"merge_strategy": "full_refresh"}
    assert "default.bronze.orders" in files["pipeline.sql"]


def test_the_starter_in_python_runs_as_it_is() -> None:
    files = domain.starter_files(ORDERS, PipelineType.PYTHON)

    names: dict[str, Any] = {}
    exec(files["pipeline.py"], names)  # as the process of a run does
    assert names["pipeline"](SimpleNamespace(duckdb=duckdb.connect())).fetchall() == [(1, "hello")]
    assert yaml.safe_load(files["config.yaml"]) == {"merge_strategy": "full_refresh"}
    assert "# @merge_strategy" in files["config.yaml"]


# Publications


def judge(
    reads: list[str],
    *,
    references: list[FoundReference] | None = None,
    published: dict[str, list[str]] | None = None,
    known: set[str] | None = None,
    zones: set[str] | None = None,
    files: list[CheckedFile] | None = None,
) -> PublishedFiles:
    checked = [CheckedFile(path="pipeline.sql", valid=True)] if files is None else files
    return domain.judge_publication(
        Validation(
            valid=all(file.valid for file in checked),
            files=checked,
            reads_tables=reads,
            references=references or [],
        ),
        pipeline=ORDERS,
        draft=draft_of({"pipeline.sql": ("1", "")}),
        published_reads=published or {},
        known=known or set(),
        known_zones=zones or set(),
    )


def reference(name: str, line: int, path: str = "pipeline.sql") -> FoundReference:
    kind: Literal["table", "landing_zone"] = "landing_zone" if "/" in name else "table"
    return FoundReference(type=kind, name=name, path=path, line=line, column=6)


def test_a_publication_without_problems_is_valid() -> None:
    found = judge(["default.bronze.raw"], known={"default.bronze.raw"})

    assert found == PublishedFiles(valid=True, files=[CheckedFile(path="pipeline.sql", valid=True)])


def test_an_unknown_table_is_a_warning_at_its_place_in_whatever_file() -> None:
    test = "tests/quality/t.sql"
    named = [reference("default.bronze.raww", 2), reference("other.gold.sums", 3, test)]

    found = judge(["default.bronze.raww", "default.gold.x"], references=named, known={"default.bronze.raw"})

    assert found.valid
    assert {file.path: file.warnings for file in found.files} == {
        "pipeline.sql": [
            FileProblem(
                line=2,
                column=6,
                message="no pipeline writes default.bronze.raww, did you mean 'default.bronze.raw'?",
            ),
            FileProblem(line=None, message="no pipeline writes default.gold.x"),
        ],
        test: [FileProblem(line=3, column=6, message="no pipeline writes other.gold.sums")],
    }


def test_an_unknown_zone_is_a_warning_at_its_place() -> None:
    named = [reference("default/known", 2), reference("default/knwon", 3)]

    found = judge([], references=named, zones={"default/known"})

    assert found.valid
    assert found.files[0].warnings == [
        FileProblem(
            line=3, column=6, message="there is no landing zone default/knwon yet, did you mean 'default/known'?"
        )
    ]


def test_a_cycle_of_published_pipelines_is_an_error_that_names_it() -> None:
    a, b = "default.silver.a", "default.gold.b"

    published = {a: [b], b: ["default.bronze.x", str(ORDERS)]}

    found = judge([a], references=[reference(a, 1)], published=published)

    assert not found.valid
    assert not found.files[0].valid
    assert found.files[0].errors == [
        FileProblem(
            line=1,
            column=6,
            message="a cycle of published pipelines: default.bronze.orders reads default.silver.a reads "
            "default.gold.b reads default.bronze.orders",
        )
    ]


def test_a_pipeline_that_reads_itself_is_told_about_this() -> None:
    found = judge([str(ORDERS)], known={str(ORDERS)})

    assert not found.valid
    assert "use this" in found.files[0].errors[0].message


def test_the_own_older_references_and_cycles_of_others_are_no_cycle() -> None:
    a, b = "default.silver.a", "default.gold.b"

    found = judge([a], published={a: [b], b: [a], str(ORDERS): [str(ORDERS)]}, known={a})

    assert found.valid


def test_problems_of_the_runner_stay_beside_ours() -> None:
    files = [
        CheckedFile(path="config.yaml", valid=False, errors=[FileProblem(line=3, message="unknown")]),
        CheckedFile(path="pipeline.sql", valid=True, warnings=[FileProblem(message="hm")]),
    ]

    found = judge(["default.bronze.raw"], files=files)

    assert not found.valid
    assert {file.path: len(file.warnings) for file in found.files} == {"pipeline.sql": 2, "config.yaml": 0}


# Pages


def entry(size: int) -> AuditEntry:
    return AuditEntry.model_validate(
        {
            "id": "6f1b0c5e-6d0e-5b8e-9f0a-2d1f6a7c3e41",
            "user_id": "x" * size,
            "action": "a",
            "resource": "r",
            "detail": {},
            "outcome": "success",
            "ip": None,
            "created_at": NOW,
        }
    )


def test_a_page_holds_as_much_as_fits_into_a_message_and_one_entry_at_least() -> None:
    assert len(fitting([entry(10)] * 3)) == 3
    assert len(fitting([entry(90_000)] * 3)) == 2
    assert len(fitting([entry(900_000)] * 3)) == 1
    assert fitting([]) == []


def test_the_cursor_goes_on_after_what_was_given() -> None:
    query = PageRequest(limit=3, offset=4)

    cursor = cursor_after(query, [entry(1)] * 2, total=7)

    assert cursor is not None
    assert PageRequest(cursor=cursor).start == 6
    assert cursor_after(query, [entry(1)] * 3, total=7) is None
    assert cursor_after(query, [], total=2) is None


@pytest.mark.parametrize("cursor", ["nonsense", "LTU=", "ä", ""])
def test_a_wrong_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        PageRequest(cursor=cursor)


# Contents


def test_a_file_fits_into_a_message_or_says_how_large_it_may_be() -> None:
    path = "default/pipelines/bronze/orders/pipeline.sql"
    WriteCodeFile(path=path, content="ä" * (MAX_CODE_BYTES // 2))

    with pytest.raises(ValueError, match="200 KiB"):
        WriteCodeFile(path=path, content="ä" * (MAX_CODE_BYTES // 2 + 1))
    with pytest.raises(ValueError, match="240 KiB"):
        WriteCodeFile(path=path, content="\n" * (MAX_CODE_BYTES - 1))


def test_nul_is_replaced_wherever_it_is() -> None:
    assert domain.without_nul({"a\0": ["b\0", 1, None, {"c": "\0"}]}) == {"a�": ["b�", 1, None, {"c": "�"}]}
