"""The golden schemas of `contracts/schemas/`: what each message looked like when it was published first.

They may only grow, by optional fields (`system.md`, Events): a subject that must change shape becomes a new one.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from contracts.messages import events, queries

Schema = Mapping[str, Any]


def current_schemas() -> dict[str, Schema]:
    """File name → JSON Schema of each event, and of each query with its answer."""
    found: dict[str, Schema] = {
        f"{_file_name(event.subject)}.json": event.model_json_schema(by_alias=True) for event in events()
    }
    for query in queries():
        found[f"{_file_name(query.subject)}.json"] = {
            "query": query.model_json_schema(),
            "answer": TypeAdapter(query.answer).json_schema(mode="serialization"),
        }
    return found


def _file_name(subject: str) -> str:
    return subject.replace(".*", "")


def golden_schemas(folder: Path) -> dict[str, Schema]:
    """File name → JSON Schema as it was published."""
    return {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def render(schema: Schema) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def broken_promises(golden: Schema, current: Schema, where: str = "") -> Iterator[str]:
    """What readers or writers of the golden schema would stumble over in the current one, one line each."""
    for key in sorted(golden.keys() | current.keys()):
        at = f"{where}/{key}"
        match key:
            case "description" | "title" | "examples" | "default":
                continue
            case "properties" | "$defs":
                yield from _lost_or_changed(golden.get(key, {}), current.get(key, {}), at)
            case "required":
                yield from _newly_required(golden.get(key, []), current.get(key, []), at)
            case _:
                yield from _changed(golden.get(key), current.get(key), at)


def _lost_or_changed(golden: Schema, current: Schema, where: str) -> Iterator[str]:
    for name, schema in golden.items():
        if name not in current:
            yield f"{where}/{name} is gone"
        else:
            yield from broken_promises(schema, current[name], f"{where}/{name}")


def _newly_required(golden: list[str], current: list[str], where: str) -> Iterator[str]:
    for name in current:
        if name not in golden:
            yield f"{where}: {name!r} has become required"
    for name in golden:
        if name not in current:
            yield f"{where}: {name!r} was always there, and now it may be missing"


def _changed(golden: Any, current: Any, where: str) -> Iterator[str]:
    if isinstance(golden, dict) and isinstance(current, dict):
        yield from broken_promises(golden, current, where)
    elif golden != current:
        yield f"{where} was {json.dumps(golden)} and is {json.dumps(current)}"
