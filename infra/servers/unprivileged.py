"""Runs a command as another user than root, who can still reach it: `unprivileged.py UID GID COMMAND ARGUMENT…`.

PostgreSQL refuses to run as root. The user that it runs as instead can often not enter the folders above the data,
or above the virtual environment (`/root` is closed), and opening those to everybody is not ours to do. So the
command keeps one right of root's, to pass through folders, where the system knows such a thing. A script: it ends
in `exec`, and uses nothing but the standard library.
"""

import ctypes
import os
import sys

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION = 0x20080522


def main() -> None:
    """Become the user and then the command."""
    uid, gid, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    if libc:
        # Containers drop the first by default and keep the second.
        _keep(libc, _CAP_DAC_READ_SEARCH) or _keep(libc, _CAP_DAC_OVERRIDE)
    os.execv(command[0], command)  # noqa: S606


def _keep(libc: ctypes.CDLL, capability: int) -> bool:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    bit = 1 << capability
    # Effective, permitted, inheritable; then the same for capabilities from 32 up.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        return False
    return bool(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)


if __name__ == "__main__":
    main()
