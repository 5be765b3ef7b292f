"""`python -m mindcv.kernels` reports whether the kernels are used, and why."""

from mindcv.kernels.library import status
from mindcv.utils.cli import run_script, show_and_stop

__all__ = ["main"]


def main() -> None:
    current = status()
    lines = [f"kernels in use: {'yes' if current.is_used else 'no'} ({current.reason})"]
    if current.is_used:
        unknown = ", ".join(current.stamp.unknown)
        lines += [
            f"instruction set: {current.instruction_set}",
            f"instruction sets built: {', '.join(current.stamp.built)}",
            f"instruction sets that the compiler did not support: {unknown or 'none'}",
            f"threads: {current.num_threads}",
            f"library: {current.path}",
        ]
    show_and_stop("\n".join(lines))


if __name__ == "__main__":
    run_script(main)
