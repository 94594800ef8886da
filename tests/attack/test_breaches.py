"""The audit check finds what it is for: events that were made up, each with one breach in it."""

from typing import Any

import pytest

from tests.attack.breaches import GATEWAY, Account, breach

ATTACKER, OTHER = Account("evil", "mallory"), Account("other", "oscar")
SENDERS = {"id-1": ATTACKER, "id-2": OTHER}


def event(**changes: Any) -> dict[str, Any]:
    """The attacker's virtual machine in its own namespace."""
    return {
        "auditID": "id-1",
        "verb": "create",
        "requestURI": "/apis/kubevirt.io/v1/namespaces/evil/virtualmachines",
        "user": {"username": GATEWAY},
        "impersonatedUser": {"username": ATTACKER.user, "groups": sorted(ATTACKER.groups)},
        "objectRef": {"resource": "virtualmachines", "namespace": "evil"},
        "responseStatus": {"code": 201},
        **changes,
    }


def review(resource: str, **changes: Any) -> dict[str, Any]:
    made = event(objectRef={"resource": resource}, requestURI=f"/apis/x/v1/{resource}", **changes)
    del made["impersonatedUser"]
    return made


VICTIMS = {"resource": "virtualmachines", "namespace": "victim"}
AS_OTHER = {"username": OTHER.user, "groups": sorted(OTHER.groups)}


@pytest.mark.parametrize(
    "orderly",
    [
        event(),
        event(auditID="nobody-waited-for-it"),
        event(objectRef=VICTIMS, responseStatus={"code": 403}),
        event(auditID="id-2", impersonatedUser=AS_OTHER, objectRef={"namespace": "other"}),
        review("tokenreviews"),
        review("subjectaccessreviews", responseStatus={"code": 403}),
        {**review(""), "objectRef": {}, "verb": "get", "requestURI": "/readyz"},
        event(user={"username": "system:kube-scheduler"}, impersonatedUser=None, objectRef=VICTIMS),
    ],
)
def test_what_is_in_order_is_no_breach(orderly: dict[str, Any]) -> None:
    assert breach(orderly, SENDERS, ATTACKER) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (event(objectRef=VICTIMS), "wrote outside its namespace"),
        (event(objectRef=VICTIMS, verb="get"), "read outside its namespace"),
        (event(objectRef={"resource": "virtualmachines"}, verb="list"), "read outside its namespace"),
        (event(responseObject={"metadata": {"namespace": "victim"}}), "wrote outside its namespace"),
        (event(impersonatedUser=AS_OTHER), f"the token of {ATTACKER.user}"),
        (event(auditID="nobody-waited-for-it", impersonatedUser=AS_OTHER), f"the token of {ATTACKER.user}"),
        (event(auditID="id-2"), f"the token of {OTHER.user}"),
        (event(impersonatedUser={"username": "system:admin", "groups": []}), f"the token of {ATTACKER.user}"),
        (
            event(impersonatedUser={"username": ATTACKER.user, "groups": [*ATTACKER.groups, "system:masters"]}),
            "more than its own groups",
        ),
        (
            event(impersonatedUser={**event()["impersonatedUser"], "extra": {"scopes": ["all"]}}),
            "more than its own groups",
        ),
        ({**review("secrets"), "verb": "get"}, "in its own name"),
        ({**review("tokenreviews"), "verb": "delete"}, "in its own name"),
        ({**review("x"), "responseStatus": {"code": 403}}, "in its own name"),
        ({**review(""), "objectRef": {}, "verb": "get", "requestURI": "/metrics"}, "in its own name"),
        (event(user={"username": ATTACKER.user}, impersonatedUser=None, objectRef=VICTIMS), "wrote outside"),
        (event(user={"username": "somebody"}, objectRef=VICTIMS), "wrote outside"),
    ],
)
def test_a_breach_is_told(wrong: dict[str, Any], said: str) -> None:
    told = breach(wrong, SENDERS, ATTACKER)
    assert told is not None
    assert said in told
    assert wrong["requestURI"] in told
