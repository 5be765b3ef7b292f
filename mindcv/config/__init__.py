"""The options of the scripts, and how a command line and a YAML file become a configuration."""

from mindcv.config.options import (
    COMMAND_OPTIONS,
    MACHINE_OPTIONS,
    NEUTRAL_OPTIONS,
    PREPROCESSING,
    InferConfig,
    RunConfig,
    TrainConfig,
    ValidateConfig,
    option,
    parse_args,
)

__all__ = [
    "COMMAND_OPTIONS",
    "MACHINE_OPTIONS",
    "NEUTRAL_OPTIONS",
    "PREPROCESSING",
    "InferConfig",
    "RunConfig",
    "TrainConfig",
    "ValidateConfig",
    "option",
    "parse_args",
]
