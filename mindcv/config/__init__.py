"""The options of the scripts, and how a command line and a YAML file become a configuration."""

from mindcv.config.checks import exported_file_problems, without_network_options
from mindcv.config.options import (
    COMMAND_OPTIONS,
    MACHINE_OPTIONS,
    NEUTRAL_OPTIONS,
    PREPROCESSING,
    RunConfig,
    option,
)
from mindcv.config.scripts import (
    SCRIPT_CONFIGS,
    AnalyzeConfig,
    AverageConfig,
    ExportConfig,
    ExtractConfig,
    InferConfig,
    PretrainConfig,
    TrainConfig,
    ValidateAllConfig,
    ValidateConfig,
    ValidationConfig,
    parse_args,
)

__all__ = [
    "COMMAND_OPTIONS",
    "MACHINE_OPTIONS",
    "NEUTRAL_OPTIONS",
    "PREPROCESSING",
    "SCRIPT_CONFIGS",
    "AnalyzeConfig",
    "AverageConfig",
    "ExportConfig",
    "ExtractConfig",
    "InferConfig",
    "PretrainConfig",
    "RunConfig",
    "TrainConfig",
    "ValidateAllConfig",
    "ValidateConfig",
    "ValidationConfig",
    "exported_file_problems",
    "option",
    "parse_args",
    "without_network_options",
]
