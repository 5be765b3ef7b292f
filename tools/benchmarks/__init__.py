"""The modules of tools/benchmark.py."""
