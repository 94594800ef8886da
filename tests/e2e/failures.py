"""Keeping what there is when a step fails, while it is there: the end of its scenario undoes it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import BlockingPortal

from virtflow.bundle import Failure, write_bundle
from virtflow.kube import describe

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

__all__ = ["keep_bundle"]

MINUTE = timedelta(minutes=1)
"""Of the components' words, or as long as the step took if that was more."""


def keep_bundle(request: pytest.FixtureRequest, feature: str, scenario: str, step: str, problem: str) -> None:
    """Write the bundle of the step that just failed, and tell where. Whatever comes of that, the outcome stays."""
    reports: Path | None = request.config.getoption("--virtflow-report")
    if reports is None:
        return
    report: Report = request.getfixturevalue("report")
    try:
        index = _write(request, reports / "failures", feature, scenario, step, problem)
    except Exception as error:  # that a step failed is worth more than why this did
        report.add_note(f"What there was could not be kept: {describe(error)}")
    else:
        report.add_note(f"[What there was when it failed]({index.relative_to(reports)})")


def _write(
    request: pytest.FixtureRequest, folder: Path, feature: str, scenario: str, step: str, problem: str
) -> Path:
    session: Session = request.getfixturevalue("session")
    portal: BlockingPortal = request.getfixturevalue("portal")
    since = min(session.step_began, datetime.now(UTC) - MINUTE)
    failure = Failure(feature, scenario, step, problem, session.workflow_id, session.labels, since)
    begin = re.sub(r"[\W_]+", "-", scenario.lower()).strip("-")[:60]
    return portal.call(
        write_bundle,
        folder / f"{begin}-{failure.mark}",
        failure,
        request.getfixturevalue("endpoints"),
        request.getfixturevalue("temporal"),
    )
