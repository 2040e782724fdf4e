"""From a vision model and a folder of photographs to the best verified version for each device, with the evidence.

>>> import edgecv
>>> edgecv.load_recipe("models/separable_cnn.toml").name
'separable_cnn'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.errors import EdgecvError
    from edgecv.files import bench
    from edgecv.pipeline import run
    from edgecv.recipe import load_recipe

__all__ = ["EdgecvError", "bench", "load_recipe", "run"]

# Imported at first use: `import edgecv` and `edgecv --help` answer at once.
_HOMES = {
    "EdgecvError": "edgecv.errors",
    "bench": "edgecv.files",
    "load_recipe": "edgecv.recipe",
    "run": "edgecv.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecv' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
