"""`python -m infra.documents`: write what is generated, or with `--check` say what is stale."""

import sys
from pathlib import Path

from infra.documents.asyncapi import asyncapi_documents
from infra.documents.events import declared, with_event_table
from infra.documents.schemas import broken_promises, current_schemas, golden_schemas, render
from infra.servers import permissions

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "contracts" / "schemas"
ASYNCAPI = ROOT / "docs" / "asyncapi"
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def documents() -> dict[Path, str]:
    """Every generated file with its text."""
    asyncapi = {ASYNCAPI / name: text for name, text in asyncapi_documents().items()}
    schemas = {SCHEMAS / name: render(schema) for name, schema in current_schemas().items()}
    rules = permissions.render(permissions.declared_permissions(declared()))
    return {
        **asyncapi,
        **schemas,
        permissions.FILE: rules,
        ARCHITECTURE: with_event_table(ARCHITECTURE.read_text()),
    }


def main() -> int:
    """Write the documents; refuse where a published schema would change shape."""
    wanted = documents()
    current = current_schemas()
    broken = [
        f"{name}{promise}"
        for name, golden in golden_schemas(SCHEMAS).items()
        for promise in (broken_promises(golden, current[name]) if name in current else [" is gone"])
    ]
    if broken:
        sys.stderr.write("published schemas may only grow by optional fields:\n")
        sys.stderr.writelines(f"  {line}\n" for line in broken)
        return 1
    if "--check" in sys.argv[1:]:
        stale = [file for file, text in wanted.items() if not file.exists() or file.read_text() != text]
        sys.stderr.writelines(f"{file.relative_to(ROOT)} is stale: make docs\n" for file in stale)
        return 1 if stale else 0
    for file, text in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
