"""DuckDB's messages, in words that tell an author what to do; those that do so already stay as they are."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

import duckdb

from shared.similar import closest

_CLASS: Final = re.compile(r"^[A-Z][A-Za-z ]* error: ")
"""What kind of error it is in DuckDB's eyes."""

_Reworded: TypeAlias = Callable[[re.Match[str]], str]

_MOST_NAMES: Final = 8
_MOST_CANDIDATES: Final = 3
_KEYWORDS: Final = frozenset(
    {"select", "distinct", "from", "where", "group", "having", "order", "limit", "offset", "join", "left", "right"}
    | {"inner", "outer", "cross", "using", "union", "intersect", "except", "with", "recursive", "qualify", "window"}
    | {"case", "when", "then", "else", "between", "null", "like", "and"}
)


def reworded(message: str) -> str:
    """A message of DuckDB, without its error's class where it is told in our words."""
    for pattern, told in _MESSAGES:
        if found := pattern.search(message):
            return told(found)
    return _CLASS.sub("", message)


def misspelt_keyword(sql: str, position: int) -> str:
    """The end of a message about a syntax error at this byte: the keyword that was meant there or before."""
    text = sql.encode()
    tokens = duckdb.tokenize(sql)
    starts = [start for start, _ in tokens]
    at = next((index for index, start in enumerate(starts) if start == position), len(tokens))
    for index in (at, at - 1):
        if not 0 <= index < len(tokens) or tokens[index][1] != duckdb.token_type.identifier:
            continue
        word = re.match(rb"\w+", text[starts[index] :])
        meant = closest(word[0].decode(), _KEYWORDS) if word and len(word[0]) > 2 else None
        if word and meant:
            return f", did you mean {meant!r} instead of {word[0].decode()!r}?"
    return ""


def named_once(message: str, sql: str) -> int | None:
    """The byte of `sql` where the only name or text stands that a message quotes; None if that is not one place."""
    # What may have been meant is quoted as well, and is not what is wrong.
    quoted = set(re.findall(r'"([^"]+)"', re.split("; there is|, did you mean", message)[0]))
    text = sql.encode()
    kinds = (duckdb.token_type.identifier, duckdb.token_type.string_const)
    places = [
        start
        for start, kind in duckdb.tokenize(sql)
        if kind in kinds
        and (found := _NAME_OR_TEXT.match(text, start))
        and found[found.lastindex or 0].decode() in quoted
    ]
    return places[0] if len(places) == 1 else None


def about_quotes(told: str, sql: str, position: int | None) -> str:
    """The end of a message about a column that is none, if it may be a text that stands between the wrong quotes."""
    is_no_column = told.startswith("there is no column") and "did you mean" not in told
    if not is_no_column or position is None or sql.encode()[position : position + 1] != b'"':
        return ""
    return "; a text stands between single quotes, as 'text'"


_NAME_OR_TEXT: Final = re.compile(rb"""([\w\x80-\xff]+)|"((?:[^"]|"")+)"|'((?:[^']|'')+)'""")
"""How one stands in a query, and what it is without its quotes."""


def _names(listed: str) -> list[str]:
    return re.findall(r'"((?:[^"]|"")*)"', listed)


def _not_there(what: str, name: str, known: list[str]) -> str:
    meant = closest(name, (one.rpartition(".")[2] for one in known))
    if meant is not None:
        return f'{what}, did you mean "{meant}"?'
    some = ", ".join(f'"{one}"' for one in known[:_MOST_NAMES])
    return f"{what}; there is {some}" if known else what


def _no_function(found: re.Match[str]) -> str:
    candidates = [line.strip() for line in found[3].strip().splitlines()]
    some = "; ".join(candidates[:_MOST_CANDIDATES])
    takes = f" (it takes {some})" if len(candidates) <= _MOST_CANDIDATES else ""
    given = _arguments(found[2])
    counts = sorted({_arguments(candidate.partition("->")[0]) for candidate in candidates})
    if "..." not in found[3] and given not in counts:
        one = "argument" if counts == [1] else "arguments"
        return f"{found[1]} takes {' or '.join(map(str, counts))} {one}, not {given}{takes}"
    if not given:
        return f"{found[1]} takes arguments, and there are none{takes}"
    example = "DOUBLE" if set(re.findall(r"\w+", found[2])) <= _TEXTS else "VARCHAR"
    return f"{found[1]} does not take the types {found[2]}{takes}: cast a value, as value::{example}"


def _arguments(signature: str) -> int:
    """How many arguments a signature has: types may have brackets and commas of their own."""
    inner = re.sub(r"\s", "", signature.partition("(")[2].rpartition(")")[0])
    while (simpler := re.sub(r"\([^()]*\)", "", inner)) != inner:
        inner = simpler
    return inner.count(",") + 1 if inner else 0


_TEXTS: Final = frozenset({"VARCHAR", "STRING_LITERAL"})
"""The types of texts, as DuckDB calls them."""

_MESSAGES: Final[tuple[tuple[re.Pattern[str], _Reworded], ...]] = (
    (
        re.compile(r"Function with name `"),
        lambda found: 'a name stands between double quotes, as "name", not between backticks',
    ),
    (
        re.compile(r'Referenced column "(.*?)" not found in FROM clause!(?:\s*Candidate bindings:(.*))?', re.DOTALL),
        lambda found: _not_there(f'there is no column "{found[1]}"', found[1], _names(found[2] or "")),
    ),
    (
        re.compile(r'Referenced column "(.*?)" was not found because the FROM clause is missing'),
        lambda found: f'there is no column "{found[1]}", as the query has no FROM',
    ),
    (
        re.compile(r'Table "(.*?)" does not have a column named "(.*?)"(?:\s*Candidate bindings:(.*))?', re.DOTALL),
        lambda found: _not_there(f'"{found[1]}" has no column "{found[2]}"', found[2], _names(found[3] or "")),
    ),
    (
        re.compile(r'Referenced table "(.*?)" not found!(?:\s*Candidate tables:(.*))?', re.DOTALL),
        lambda found: _not_there(
            f'there is no table "{found[1]}" in this FROM clause', found[1], _names(found[2] or "")
        ),
    ),
    (
        re.compile(
            r"(?:Scalar |Table |Aggregate )?(Function|Type) with name (\S+) does not exist!(?:\s*Did you mean(.*))?",
            re.DOTALL,
        ),
        lambda found: _not_there(f'there is no {found[1].lower()} "{found[2]}"', found[2], _names(found[3] or "")),
    ),
    (
        re.compile(
            r"No function matches the given name and argument types '(\S+?)(\(.*?\))'\..*Candidate functions:(.*)",
            re.DOTALL,
        ),
        _no_function,
    ),
    (
        re.compile(
            r'Could not choose a best candidate function for the function call "(\S+?)(\(.*?\))"\.'
            r".*Candidate functions:(.*)",
            re.DOTALL,
        ),
        _no_function,
    ),
    (
        re.compile(r'Could not find key "(.*?)" in struct\s*Candidate Entries:(.*)', re.DOTALL),
        lambda found: _not_there(f'the struct has no field "{found[1]}"', found[1], _names(found[2])),
    ),
    (
        re.compile(r"(More than one row returned by a subquery used as an expression)", re.DOTALL),
        lambda found: f"{found[1]}: it must give one row at most",
    ),
    (
        re.compile(r"column (\S+) must appear in the GROUP BY clause or be used in an aggregate function"),
        lambda found: f'column "{found[1]}" must appear in the GROUP BY clause or be used in an aggregate function',
    ),
    (
        re.compile(r"NameListToString NOT IMPLEMENTED"),
        lambda found: "a name has too many parts: tables are named namespace.layer.table",
    ),
    (
        re.compile(r'Invalid named parameter "(.*?)" for function (\w+)\s*Candidates:(.*)', re.DOTALL),
        lambda found: _not_there(
            f'{found[2]} has no parameter "{found[1]}"', found[1], re.findall(r"^\s*(\w+) ", found[3], re.MULTILINE)
        ),
    ),
    (
        re.compile(r'Cannot access \w+ "(.*?)" - .* disabled by configuration'),
        lambda found: f'"{found[1]}" cannot be read here: a pipeline reads files of the platform\'s own bucket only',
    ),
    (
        re.compile(r"(Error when sniffing file .*?)\nThe search space used was:.*?(\nPossible fixes:.*)", re.DOTALL),
        lambda found: found[1] + found[2].rstrip(),
    ),
)
