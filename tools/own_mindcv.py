"""Imported first by each tool: `mindcv` is then the package beside this folder, as in the scripts there.

Without it a tool would take an installed package, which may be another library: MindCV has the same name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
