"""Makes `import mindcv` find the package beside this folder. Each tool imports this module first.

Otherwise a tool could import an installed package of the same name, which may be another library: MindCV.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
