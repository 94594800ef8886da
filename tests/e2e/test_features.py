"""Every scenario of every feature becomes a test."""

from pathlib import Path

from pytest_bdd import scenarios

scenarios(str(Path(__file__).parents[2] / "features"))
