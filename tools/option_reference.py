"""Write docs/reference/options.md, the table of every option of the scripts: `python tools/option_reference.py`.

The page is made from the options in the configuration classes, so edit an option there and run this tool again.
"""

from __future__ import annotations

from pathlib import Path

import own_mindcv  # noqa: F401

from mindcv.config import SCRIPT_CONFIGS
from mindcv.config.parsing import Option, used_options
from mindcv.utils.files import atomic_write_text

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "options.md"
INTRODUCTION = """\
# Options

This page lists every option of `train.py`, `pretrain.py`, `validate.py`, `infer.py`,
`tools/extract_features.py`, `tools/analyze.py`, `tools/validate_all.py`, `tools/average.py` and
`tools/export.py`.

- On the command line an option is a flag: `--batch_size 64`. In a YAML file it is a key:
  `batch_size: 64`. A flag overrides the file that `--config` names.
- A flag that the script does not use is an error. A YAML file can hold the options of all scripts.
- A list is written as `--mean 127.5 127.5 127.5`, `--mean 127.5,127.5,127.5` or, in YAML,
  `mean: [127.5, 127.5, 127.5]`.
- `--print_config True` prints the value of every option and where it comes from.

`python tools/option_reference.py` writes this page from the code. Do not edit it by hand.
"""


def option_page() -> str:
    """Return the whole page in Markdown."""
    by_group: dict[str, dict[str, Option]] = {}
    for config in SCRIPT_CONFIGS:
        for name, option in used_options(config).items():
            by_group.setdefault(option.group, {})[name] = option
    return "\n".join([INTRODUCTION, *(_section(group, options) for group, options in by_group.items())])


def main() -> None:
    """Write the page."""
    atomic_write_text(PAGE, option_page())
    print(PAGE)


def _section(group: str, options: dict[str, Option]) -> str:
    """Return a heading with the table of its options."""
    rows = [
        f"## {group}\n",
        "| option | what it does | value | default | scripts |",
        "| ------ | ------------ | ----- | ------- | ------- |",
    ]
    for name, option in options.items():
        cells = (f"`{name}`", option.help.replace("*", "\\*"), option.expected, _default(option), _scripts(option))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(option: Option) -> str:
    """Return the default as a user would write it."""
    value = list(option.default) if isinstance(option.default, tuple) else option.default
    return "empty" if value in ("", []) else f"`{value}`"


def _scripts(option: Option) -> str:
    """Return the names of the scripts that use the option, without their suffix."""
    users = [config for config in SCRIPT_CONFIGS if used_options(config).get(option.name) == option]
    users = [config.script.partition(".")[0] for config in users]
    return "all" if len(users) == len(SCRIPT_CONFIGS) else ", ".join(users)


if __name__ == "__main__":
    main()
