"""Describes the machine that a figure depends on: processor, cores, instruction sets, memory.

This module uses only the standard library.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any, Optional

__all__ = ["INSTRUCTION_SETS", "available_cores", "describe_machine", "peak_memory_mib", "tree_memory_mib"]

# Instruction sets that decide which kernels the libraries choose for float32 and bfloat16.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def available_cores() -> int:
    """Return the number of cores that this process may use. In a container it can be smaller than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(proc: str = "/proc") -> dict[str, Any]:
    """Return processor, cores, instruction sets and memory (MiB) of this machine; None for unknown facts.

    Args:
        proc: folder in which Linux describes the system. Other systems do not have it.
    """
    cpu = _text(f"{proc}/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", cpu, re.M)
    words = flags.group(1).split() if flags else []
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, re.M)
    return {
        "cpu_model": model.group(1).strip() if model else platform.processor() or None,
        "cores": available_cores(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in words] if flags else None,
        "memory_mib": _field_mib(f"{proc}/meminfo", "MemTotal"),
    }


def peak_memory_mib() -> Optional[float]:
    """Return the peak memory of this process (VmHWM) in MiB, or None. MindSpore's own figure is 0 on CPU."""
    return _field_mib("/proc/self/status", "VmHWM")


def tree_memory_mib() -> Optional[float]:
    """Return the present memory of this process and its descendants (PSS) in MiB, or None.

    Pages that forked workers share are counted once.
    """
    shares = [_field_mib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in _descendants(os.getpid())]
    known = [share for share in shares if share is not None]  # a descendant may have ended meanwhile
    return sum(known) if known else None


def _descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        children += [int(word) for word in _text(f"{task}/children").split()]
    return [pid, *(descendant for child in children for descendant in _descendants(child))]


def _field_mib(path: str, name: str) -> Optional[float]:
    match = re.search(rf"^{name}:\s+(\d+) kB", _text(path), re.M)
    return int(match.group(1)) / 1024 if match else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:  # not Linux, or the process has ended meanwhile
        return ""
