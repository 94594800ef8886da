"""Policies are in one place, and whatever an activity waits for by itself is shorter than its policy allows."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.workflow import ActivityConfig, LocalActivityConfig

from activities import access, causes, evidence, faults, gateway, outages, tenants
from workflows import options

ROOT = Path(__file__).parents[2]
POLICY = re.compile(r"\w+_(?:close|start|heartbeat|execution|run|task)_timeout=|\bheartbeat_timeout=|RetryPolicy\(")


def test_no_policy_is_anywhere_else() -> None:
    assert POLICY.search((ROOT / "workflows" / "options.py").read_text())
    folders = ("workflows", "activities", "virtflow", "load", "clusters", "tests/e2e")
    files = {file for folder in folders for file in (ROOT / folder).rglob("*.py")}
    strays = {file for file in files if POLICY.search(file.read_text())}
    assert strays == {ROOT / "workflows" / "options.py"}


GATEWAY_ANSWERS = timedelta(seconds=gateway.REQUEST_LIMIT.total or 3600)


@pytest.mark.parametrize(
    ("own", "policy"),
    [
        (GATEWAY_ANSWERS, options.QUICK),
        (evidence.COMPLETE_WITHIN, options.EVIDENCE),
        (max(tenants.ACCOUNT_LIMIT, tenants.QUOTA_LIMIT), options.CREATE_TENANT),
        (tenants.GONE_LIMIT, options.CLEAN_UP),
        (access.ROLE_LIMIT + access.LOG_LIMIT, options.waiting(options.TRIED_WITHIN)),
        (access.LOG_LIMIT + access.LOG_LIMIT, options.waiting(options.ASKED_WITHIN)),
        (causes.LOOK_LIMIT, options.waiting(timedelta())),
        (faults.NODE_LIMIT, options.waiting(options.NODE_CHANGES_WITHIN)),
        (outages.BACK_LIMIT, options.holding(timedelta())),
    ],
)
def test_an_activitys_own_limit_is_shorter(own: timedelta, policy: ActivityConfig | LocalActivityConfig) -> None:
    limit = policy["start_to_close_timeout"]
    assert limit is not None
    assert own + timedelta(seconds=5) <= limit


def test_who_waits_for_a_workflow_waits_longer_than_it_may_take() -> None:
    undone = options.CLEAN_UP["schedule_to_close_timeout"]
    assert undone is not None
    assert undone < options.UNDONE_LIMIT
    for policy in (
        options.CREATE_TENANT,
        options.waiting(options.TRIED_WITHIN),
        options.loading(timedelta(minutes=10)),
    ):
        whole = policy["schedule_to_close_timeout"]
        assert whole is not None
        assert whole < options.STEP_LIMIT
