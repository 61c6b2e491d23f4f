"""The documents of the API: its OpenAPI description, also as one HTML page that needs nothing from elsewhere."""

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin

from services.gateway.problems import MEDIA_TYPE, PROBLEM_SCHEMA

_METHODS: Final = ("get", "post", "put", "delete")

_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #3d444d); --soft: light-dark(#f6f8fa, #151b23) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0 }
summary { padding: .5rem .8rem; cursor: pointer }
details > div { padding: 0 .8rem .8rem }
code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { background: var(--soft); padding: .6rem; overflow: auto }
b.get { color: #1a7f37 } b.post { color: #0969da } b.put { color: #9a6700 } b.delete { color: #cf222e }
summary b { display: inline-block; width: 4.5rem; text-transform: uppercase }
summary span { opacity: .7; margin-left: 1rem }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }
"""


class JsonDocument(JsonRenderPlugin):
    """The description as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document."""
        return super().render(request, with_problems(openapi_schema))


class YamlDocument(YamlRenderPlugin):
    """The description as YAML."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document."""
        return super().render(request, with_problems(openapi_schema))


def with_problems(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description with the errors as this API tells them: Litestar describes only its own, of status 400."""
    problem = {
        "description": "What is wrong, and with what",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }

    def of_operation(operation: Mapping[str, Any]) -> dict[str, Any]:
        answers = {status: answer for status, answer in operation["responses"].items() if status != "400"}
        return {**operation, "responses": {**answers, "default": problem}}

    components = description.get("components", {})
    return {
        **description,
        "paths": {
            path: {
                method: of_operation(operation) if method in _METHODS else operation
                for method, operation in operations.items()
            }
            for path, operations in description["paths"].items()
        },
        "components": {**components, "schemas": {**components.get("schemas", {}), "Problem": PROBLEM_SCHEMA}},
    }


class DocumentsPage(OpenAPIRenderPlugin):
    """Shows every path with its parameters, bodies and answers."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page."""
        return page(json.loads(self.get_openapi_json(request, with_problems(openapi_schema)))).encode()

    @staticmethod
    def get_openapi_json(request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The description as JSON."""
        return OpenAPIRenderPlugin.render_json(request, openapi_schema)


def page(description: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    schemas = description.get("components", {}).get("schemas", {})
    title = html.escape(f"{description['info']['title']} {description['info']['version']}")
    return "".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
            f"<h1>{title}</h1><p>{html.escape(description['info'].get('description', ''))}</p>",
            '<p><a href="/schema/openapi.json">openapi.json</a> · <a href="/schema/openapi.yaml">openapi.yaml</a></p>',
            *_operations(description["paths"]),
            "<h2>Shapes</h2>",
            *(_shape(name, schema) for name, schema in sorted(schemas.items())),
        ]
    )


def _operations(paths: Mapping[str, Any]) -> Iterable[str]:
    tagged: dict[str, list[str]] = {}
    for path, operations in paths.items():
        for method in _METHODS:
            if method in operations:
                tag = operations[method].get("tags", ["Other"])[0]
                tagged.setdefault(tag, []).append(_operation(method, path, operations[method]))
    for tag, shown in tagged.items():
        yield f"<h2>{html.escape(tag)}</h2>"
        yield from shown


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    title = f"<b class={method}>{method}</b><code>{html.escape(path)}</code>"
    inside = _parameters(operation.get("parameters", [])) + _body(operation) + _answers(operation)
    return _details("", title, operation.get("description", ""), inside)


def _details(anchor: str, title: str, about: str, inside: str) -> str:
    head = f"<summary>{title}<span>{html.escape(about)}</span></summary>"
    return f'<details id="{html.escape(anchor)}">{head}<div>{inside}</div></details>'


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td><code>{html.escape(one['name'])}</code><td>{one['in']}<td>{_kind(one.get('schema', {}))}"
        f"<td>{html.escape(one.get('description', ''))}"
        for one in parameters
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _body(operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(f"<p>Body, {html.escape(kind)}: {_kind(one.get('schema', {}))}" for kind, one in content.items())


def _answers(operation: Mapping[str, Any]) -> str:
    shown = []
    for status, answer in operation.get("responses", {}).items():
        kinds = [_kind(one["schema"]) for one in answer.get("content", {}).values() if one.get("schema")]
        shown.append(f"<p>{status}: {' or '.join(kinds) or html.escape(answer.get('description', ''))}")
    return "".join(shown)


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value in few words, with a link where it has a shape of its own."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(_kind(one) for one in schema[choice])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(f"<code>{html.escape(str(one))}</code>" for one in schema["enum"])
    return html.escape(str(schema.get("format") or schema.get("type") or "anything"))


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{html.escape(key)}</code><td>{_kind(one)}<td>{html.escape(one.get('description', ''))}"
        for key, one in schema.get("properties", {}).items()
    ]
    shown = f"<table>{''.join(rows)}</table>" if rows else f"<p>{_kind(schema)}"
    return _details(name, f"<code>{html.escape(name)}</code>", schema.get("description", ""), shown)
