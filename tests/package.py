"""The package that runs here, compiled or not: for programs that tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import joinleaf

__all__ = ["SRC"]

SRC: Final = Path(joinleaf.__file__).resolve().parents[1]
