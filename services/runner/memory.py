"""How much memory this process needed at the most."""

import resource
from contextlib import suppress
from pathlib import Path

_SELF = Path("/proc/self")


def forget_peak() -> None:
    """Begin to measure anew, where the system lets us: Linux does."""
    with suppress(OSError):
        (_SELF / "clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most resident memory since `forget_peak`, or since the process began where that cannot be told."""
    with suppress(OSError):
        for line in (_SELF / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
