"""Packages with entry points in a folder, as an installer would put them there."""

import tomllib
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, files: Mapping[str, str]) -> None:
    """Lay out a package of modules, with the entry points of its `pyproject.toml`."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    for path, text in files.items():
        (folder / path).write_text(text)
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(groups))
