"""Every scenario of every feature becomes a test."""

from pytest_bdd import scenarios

from tests.e2e.steps.world import FEATURES

scenarios(str(FEATURES))
