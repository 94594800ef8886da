"""A copy of this checkout to be broken, and its command line in another process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "copy_checkout", "virtflow_of"]

ROOT = Path(__file__).parents[2]


def virtflow_of(checkout: Path, state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `virtflow` as this checkout has it."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
    given = {"VIRTFLOW_STATE_HOME": str(state), "PYTHONPATH": str(checkout), "COLUMNS": "400", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "virtflow", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=checkout, env=own | given | environment
    )


def copy_checkout(to: Path) -> Path:
    """All of it that a run needs."""
    for name in ("activities", "clusters", "features", "load", "tests/e2e", "virtflow", "workflows"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / name, to / name)
    return to
