"""Each recorded situation, played on a running cluster: the local one, or that of --kubeconfig."""

import pytest

from tests.conformance.outcomes import Outcome
from tests.conformance.situations import load_situations

NAMES = [situation.name for situation in load_situations()]


@pytest.mark.parametrize("name", NAMES)
def test_it_agrees_with_the_recording(name: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[name].differences == []


@pytest.mark.parametrize("name", NAMES)
def test_what_watches_show_agrees_with_the_recording(name: str, outcomes_by_watches: dict[str, Outcome]) -> None:
    assert outcomes_by_watches[name].differences == []
