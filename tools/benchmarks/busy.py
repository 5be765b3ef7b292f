"""A process that keeps a core busy: `python -m benchmarks.busy NUM_CORES` (see `benchmarks.neighbours`).

This module uses only the standard library, so that the process starts at once and needs little memory.
"""

from __future__ import annotations

import signal
import sys

from benchmarks.worker import bind_to_cores, end_with_parent

__all__ = ["READY", "main"]

READY = "busy"  # the line that the process writes before it begins to compute


def main(num_cores: int) -> None:
    """Compute on the first `num_cores` cores without a pause, until this process is killed or its parent ends."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops this one
    bind_to_cores(0, num_cores)
    print(READY, flush=True)
    while True:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
