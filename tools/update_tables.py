"""Write the generated tables into the pages: `python tools/update_tables.py`.

README.md gets the table of variants. docs/reference/pretrained.md gets the table of published weights. Each model card
in configs/ gets the table of its recipes. A table lies between two comments. The rest of a page is written by hand.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import own_mindcv  # noqa: F401
from mindspore.nn.utils import no_init_parameters

from mindcv.models import create_model, list_models
from mindcv.models.complexity import count_macs, count_parameters
from mindcv.models.pretrained import markdown_table as pretrained_table
from mindcv.utils.files import atomic_write_text

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- begin of a generated table: python tools/update_tables.py -->"
END = "<!-- end of the generated table -->"


def main() -> None:
    """Write all pages."""
    for path, page in updated_pages().items():
        atomic_write_text(path, page)
        print(path)


def updated_pages() -> dict[Path, str]:
    """Return the path and the new content of each page."""
    tables = {"README.md": variant_table(), "docs/reference/pretrained.md": pretrained_table()}
    for card in sorted((ROOT / "configs").glob("*/README.md")):
        tables[card.relative_to(ROOT).as_posix()] = recipe_table(card.parent)
    return {ROOT / name: with_table((ROOT / name).read_text(encoding="utf-8"), table) for name, table in tables.items()}


def with_table(page: str, table: str) -> str:
    """Return the page with the table between its two comments."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def variant_table() -> str:
    """Return a table of all registered variants with parameters and operations, with the families side by side."""
    families: dict[str, list[tuple[int, tuple[str, str, str]]]] = {}
    for name in list_models(module="convnext"):
        with no_init_parameters():
            network = create_model(name)
        size = count_parameters(network)
        cells = (name, f"{size:,}", f"{count_macs(network) / 1e9:.2f}")
        families.setdefault(name.split("_")[0], []).append((size, cells))
    columns = [[cells for _, cells in sorted(rows)] for rows in families.values()]
    rows = [
        [("variant", "parameters", "GMACs")] * len(columns),
        [("---", "---", "---")] * len(columns),
        *zip_longest(*columns, fillvalue=("", "", "")),
    ]
    # An empty column lies between two families.
    lines = ["| " + " |  | ".join(" | ".join(cells) for cells in row) + " |" for row in rows]
    lines[1] = lines[1].replace(" |  | ", " | --- | ")
    return "\n".join(lines)


def recipe_table(folder: Path) -> str:
    """Return a table of the recipes in a folder, with the devices and the expected result from their headers."""
    rows = ["| recipe | devices | expected result |", "|---|---|---|"]
    for path in sorted(folder.glob("*.yaml")):
        header = header_of(path)
        cells = (f"[{path.name}]({path.name})", header["Devices"].rstrip("."), header["Expected"].rstrip("."))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def header_of(path: Path) -> dict[str, str]:
    """Return the entries `# Name: text` at the beginning of a recipe. Indented lines continue the entry before them."""
    entries: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        entry = re.match(r"# ([A-Z]\w+): +(.+)", line)
        if entry:
            name, entries[entry[1]] = entry[1], entry[2].strip()
        elif name and line.startswith("#  "):
            entries[name] += " " + line[1:].strip()
        else:
            name = ""
    return entries


if __name__ == "__main__":
    main()
