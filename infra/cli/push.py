"""Brings a folder's pipelines to the platform: what is missing is made, what differs is written."""

from dataclasses import dataclass, field
from typing import Any

from infra.cli.api import Api
from infra.cli.failure import ExitCode, Failure
from infra.cli.folder import LocalPipeline


@dataclass(frozen=True)
class Pushed:
    """What was done for a pipeline."""

    pipeline: str
    created: bool
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    version: int | None = None
    """The version that runs now; None before the first publication."""
    published: bool = False
    warnings: list[str] = field(default_factory=list)


def ensure_namespaces(api: Api, pipelines: list[LocalPipeline]) -> None:
    """Make the namespaces that are missing."""
    known = {namespace["name"] for namespace in api.entries("/namespaces", "namespaces")}
    for name in dict.fromkeys(pipeline.namespace for pipeline in pipelines):
        if name not in known:
            api.post("/namespaces", {"name": name})


def push_draft(api: Api, local: LocalPipeline, *, prune: bool) -> Pushed:
    """Make the pipeline's draft what the folder holds.

    Files that the folder does not have stay, unless `prune` says otherwise, or the platform made them just now.
    """
    created = _ensure_pipeline(api, local)
    remote = {
        file["path"].removeprefix(local.prefix): file for file in api.entries("/files", "files", prefix=local.prefix)
    }
    written = [path for path, text in local.files.items() if _differs(api, local, path, text, remote.get(path))]
    for path in written:
        api.put(f"/files/{local.prefix}{path}", {"content": local.files[path]})
    removed = sorted(remote.keys() - local.files.keys()) if prune or created else []
    for path in removed:
        api.delete(f"/files/{local.prefix}{path}")
    return Pushed(local.qualified, created, written, [] if created else removed)


def publish(api: Api, local: LocalPipeline, pushed: Pushed) -> Pushed:
    """Publish the draft if it differs from what is published; `Failure` names each file and line that is wrong."""
    pipeline = api.get(local.path)
    if pipeline["version"] is not None and not pipeline["draft_dirty"]:
        return Pushed(pushed.pipeline, pushed.created, pushed.written, pushed.removed, pipeline["version"])
    try:
        answer = api.post(f"{local.path}/publish")
    except Failure as failure:
        raise Failure(
            _problems(local, failure), failure.exit_code, code=failure.code, details=failure.details
        ) from None
    warnings = _lines(answer.get("validation", {}), "warnings")
    return Pushed(
        pushed.pipeline,
        pushed.created,
        pushed.written,
        pushed.removed,
        answer["version"],
        published=True,
        warnings=warnings,
    )


def _ensure_pipeline(api: Api, local: LocalPipeline) -> bool:
    try:
        existing = api.get(local.path)
    except Failure as failure:
        if failure.exit_code != ExitCode.NOT_FOUND:
            raise
        api.post(
            "/pipelines",
            {"namespace": local.namespace, "layer": local.layer, "name": local.name, "type": local.type},
        )
        return True
    if existing["type"] != local.type:
        api.put(local.path, {"type": local.type})
    return False


def _differs(api: Api, local: LocalPipeline, path: str, text: str, remote: dict[str, Any] | None) -> bool:
    if remote is None or remote["size"] != len(text.encode()):
        return True
    return bool(api.get(f"/files/{local.prefix}{path}")["content"] != text)


def _problems(local: LocalPipeline, failure: Failure) -> str:
    lines = _lines(failure.details.get("validation", {}), "errors")
    if not lines:
        return f"{local.qualified} was not published: {failure.message}"
    return "\n  ".join([f"{local.qualified} was not published:", *lines])


def _lines(validation: dict[str, Any], kind: str) -> list[str]:
    return [
        f"{file['path']}{':' + str(problem['line']) if problem.get('line') else ''}: {problem['message']}"
        for file in validation.get("files", [])
        for problem in file.get(kind, [])
    ]
