"""Processes that may end at any moment: each look asks the system anew, and one that has ended has no answers."""

import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or only waits to be taken notice of by its parent."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_has_ended(pid: int) -> bool:
    """`has_ended` of a process of which only the number is known."""
    try:
        return has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def signalled(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that have not ended by themselves."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def command_of(process: psutil.Process) -> list[str]:
    """Its program and arguments; nothing if it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
