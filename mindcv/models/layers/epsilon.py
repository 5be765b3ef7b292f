"""The constant that keeps LayerNorm and GRN from dividing by 0. The kernels write it as `kEps` and `kGrnEps`."""

__all__ = ["EPSILON"]

EPSILON = 1e-6
