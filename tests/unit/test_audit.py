import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.sequence.audit import read_writes, write_of


def event(**changes: Any) -> dict[str, Any]:
    """An audit event as kube-apiserver writes it for a VM that the gateway creates as a tenant."""
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": "6b1f2f3e-7b0e-4d57-9a59-4a4f5b7a6c11",
        "stage": "ResponseComplete",
        "requestURI": "/apis/kubevirt.io/v1/namespaces/team-a/virtualmachines",
        "verb": "create",
        "user": {"username": "system:serviceaccount:virtflow-system:iam-gateway", "groups": ["system:authenticated"]},
        "impersonatedUser": {"username": "system:serviceaccount:team-a:tenant"},
        "sourceIPs": ["127.0.0.1"],
        "userAgent": "iam-gateway",
        "objectRef": {
            "resource": "virtualmachines",
            "namespace": "team-a",
            "name": "vm-1",
            "apiGroup": "kubevirt.io",
            "apiVersion": "v1",
        },
        "responseStatus": {"metadata": {}, "code": 201},
        "responseObject": {
            "kind": "VirtualMachine",
            "metadata": {"name": "vm-1", "namespace": "team-a", "uid": "u-1"},
        },
        "requestReceivedTimestamp": "2026-11-23T10:00:00.123456Z",
        "stageTimestamp": "2026-11-23T10:00:00.223456Z",
        "annotations": {"authorization.k8s.io/decision": "allow"},
        **changes,
    }


def line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


def names(log: Path, namespace: str = "team-a") -> list[str]:
    return [write.name for write in read_writes(log, namespace)]


def test_a_write_is_read_with_all_that_proves_it() -> None:
    write = write_of(event())
    assert write is not None
    assert write.at == datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
    assert write.user == "system:serviceaccount:virtflow-system:iam-gateway"
    assert write.impersonated == "system:serviceaccount:team-a:tenant"
    assert (write.agent, write.verb, write.code) == ("iam-gateway", "create", 201)
    assert (write.resource, write.subresource, write.namespace, write.name) == (
        "virtualmachines",
        "",
        "team-a",
        "vm-1",
    )
    assert write.answer["metadata"]["uid"] == "u-1"
    assert write.annotations == {"authorization.k8s.io/decision": "allow"}


def test_what_the_policy_leaves_out_is_empty() -> None:
    bare = event(level="Metadata", user={})
    for key in ("impersonatedUser", "responseObject", "annotations", "userAgent", "objectRef", "responseStatus"):
        del bare[key]
    write = write_of(bare)
    assert write is not None
    assert (write.user, write.impersonated, write.agent, write.resource, write.name) == ("", None, "", "", "")
    assert (write.code, write.answer, write.annotations) == (0, {}, {})
    assert write_of(event(responseObject=None, annotations=None)) is not None


@pytest.mark.parametrize(
    "changes",
    [{"verb": "get"}, {"verb": "list"}, {"verb": "watch"}, {"stage": "RequestReceived"}, {"stage": "Panic"}],
)
def test_what_is_no_answered_write_is_none(changes: dict[str, str]) -> None:
    assert write_of(event(**changes)) is None


def test_a_generated_name_is_in_the_answer_only() -> None:
    reference = {"resource": "pods", "namespace": "team-a", "apiVersion": "v1"}
    answer = {"metadata": {"name": "virt-launcher-vm-1-x7k2p", "generateName": "virt-launcher-vm-1-"}}
    write = write_of(event(objectRef=reference, responseObject=answer))
    assert write is not None
    assert write.name == "virt-launcher-vm-1-x7k2p"


def test_writes_of_other_namespaces_and_refusals_are_left_out(log: Path) -> None:
    reference = event()["objectRef"]
    events = [
        event(objectRef={**reference, "name": "mine"}),
        event(objectRef={**reference, "name": "theirs", "namespace": "team-b"}),
        event(objectRef={**reference, "name": "longer", "namespace": "team-a-2"}),
        # It speaks of the namespace, but is no write to it.
        event(
            objectRef={**reference, "name": "about", "namespace": "team-b"},
            responseObject={"metadata": {"namespace": "team-a"}},
        ),
        event(objectRef={**reference, "name": "refused"}, responseStatus={"code": 403}),
        event(objectRef={**reference, "name": "read"}, verb="get"),
        event(objectRef={**reference, "name": "mine too"}, verb="patch", responseStatus={"code": 200}),
    ]
    log.write_text("".join(map(line, events)))
    assert names(log) == ["mine", "mine too"]
    assert names(log, "team-b") == ["theirs", "about"]
    assert names(log, "team") == []


@given(cut=st.integers(0, len(line(event()))))
def test_a_last_line_that_is_being_written_is_left_for_the_next_reading(log: Path, cut: int) -> None:
    whole = line(event(objectRef={**event()["objectRef"], "name": "vm-2"}))
    log.write_text(line(event()) + whole[: min(cut, len(whole) - 1)])
    assert names(log) == ["vm-1"]
    log.write_text(line(event()) + whole)
    assert names(log) == ["vm-1", "vm-2"]


def test_a_log_may_hold_any_text_and_lines_of_others_are_not_decoded(log: Path) -> None:
    log.write_bytes(b"\xff\xfe not json\n" + line(event(userAgent="ünï")).encode() + b"\n{}\n")
    assert names(log) == ["vm-1"]
