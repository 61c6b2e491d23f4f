"""What the whole platform takes when nobody wants anything of it."""

import asyncio

import psutil

from bench.platform import Platform

SECONDS = 10.0


async def idle(platform: Platform) -> list[list[str]]:
    """Rows of memory (PSS: shared pages counted once) and CPU, by kind of process."""
    processes = platform.processes()
    before = [_cpu(process) for process in processes]
    await asyncio.sleep(SECONDS)
    rows = []
    total_memory, total_cpu = 0.0, 0.0
    by_name: dict[str, list[float]] = {}
    for process, earlier in zip(processes, before, strict=True):
        if not process.is_running():
            continue
        memory = process.memory_full_info().pss / 1e6
        cpu = (_cpu(process) - earlier) / SECONDS * 100
        name = _name(process, platform)
        sums = by_name.setdefault(name, [0.0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += memory
        sums[2] += cpu
        total_memory += memory
        total_cpu += cpu
    for name, (count, memory, cpu) in by_name.items():
        rows.append([name, f"{count:.0f}", f"{memory:.0f}", f"{cpu:.1f}"])
    rows.append(["**all**", f"{len(processes)}", f"**{total_memory:.0f}**", f"**{total_cpu:.1f}**"])
    return rows


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _name(process: psutil.Process, platform: Platform) -> str:
    if process.pid == platform.process.pid:
        return "services"
    for name, pid in platform.stack.pids.items():
        if process.pid == pid or pid in [parent.pid for parent in process.parents()]:
            return name
    return "processes of runner and query"
