"""A folder of pipelines, laid out as in the bucket, and what has to change for the platform to have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.cli.failure import ExitCode, Failure

LAYERS: Final = ("bronze", "silver", "gold")
CODE: Final = ("pipeline.sql", "pipeline.py")


@dataclass(frozen=True)
class LocalPipeline:
    """A pipeline in a folder."""

    namespace: str
    layer: str
    name: str
    files: Mapping[str, str]
    """Path below the pipeline's folder → text."""

    @property
    def qualified(self) -> str:
        """Its name in full."""
        return f"{self.namespace}.{self.layer}.{self.name}"

    @property
    def prefix(self) -> str:
        """Where its files lie in the bucket."""
        return f"{self.namespace}/pipelines/{self.layer}/{self.name}/"

    @property
    def path(self) -> str:
        """Its path in the API."""
        return f"/pipelines/{self.namespace}/{self.layer}/{self.name}"

    @property
    def type(self) -> str:
        """The language of its code."""
        return "python" if "pipeline.py" in self.files else "sql"


def read_folder(directory: Path, namespace: str) -> list[LocalPipeline]:
    """The pipelines below a directory, those that others are made of first.

    The directory holds `{namespace}/pipelines/{layer}/{name}/…`, or the same without what `{layer}` comes after; where
    it does not say the namespace, it is the given one. `Failure` if it holds no pipeline, or one that lies elsewhere.
    """
    homes = sorted({code.parent for name in CODE for code in directory.rglob(name)})
    found = [_pipeline(directory, home, namespace) for home in homes]
    if not found:
        raise Failure(
            f"{directory} holds no pipeline: none of its folders is {{namespace}}/pipelines/{{layer}}/{{name}} "
            "with a pipeline.sql or pipeline.py",
            ExitCode.NOT_FOUND,
        )
    return sorted(found, key=lambda pipeline: (LAYERS.index(pipeline.layer), pipeline.namespace, pipeline.name))


def _pipeline(directory: Path, home: Path, namespace: str) -> LocalPipeline:
    match home.relative_to(directory).parts:
        case [layer, name] if layer in LAYERS:
            place = namespace, layer, name
        case ["pipelines", layer, name] if layer in LAYERS:
            place = namespace, layer, name
        case [own, "pipelines", layer, name] if layer in LAYERS:
            place = own, layer, name
        case _:
            raise Failure(
                f"{home} is not where a pipeline lies: {{namespace}}/pipelines/{{layer}}/{{name}} below {directory}, "
                f"the layer one of {', '.join(LAYERS)}"
            )
    if all((home / name).exists() for name in CODE):
        raise Failure(f"{home} has both a pipeline.sql and a pipeline.py; a pipeline is one of them")
    return LocalPipeline(*place, files={str(file.relative_to(home)): _text(file) for file in _files(home)})


def _files(home: Path) -> list[Path]:
    """What belongs to a pipeline; other files in its folder are the author's own."""
    known = [*(home / name for name in (*CODE, "config.yaml")), *sorted((home / "tests" / "quality").glob("*.sql"))]
    return [file for file in known if file.is_file()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read as text: {error}") from error
