"""A line of each log, as its program writes it, and what is kept of it."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clusters.gateway.access_log import AccessLog, Record
from virtflow.sequence.audit import (
    ACCESS_RECORD_START,
    NO_STATUS,
    AccessRecord,
    Owner,
    Status,
    Write,
    access_record_of,
    write_of,
)


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
        "annotations": {
            "authorization.k8s.io/decision": "allow",
            "mutation.webhook.admission.k8s.io/round_0_index_0": '{"webhook":"w"}',
            "patch.webhook.admission.k8s.io/round_0_index_0": '{"webhook":"w","patch":[]}',
        },
        **changes,
    }


def line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def read(**changes: Any) -> Write:
    write = write_of(line(event(**changes)))
    assert write is not None
    return write


def test_a_write_is_read_with_all_that_proves_it() -> None:
    write = read()
    assert write.at == datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
    assert write.user == "system:serviceaccount:virtflow-system:iam-gateway"
    assert write.impersonated == "system:serviceaccount:team-a:tenant"
    assert (write.verb, write.code, write.audit_id) == ("create", 201, "6b1f2f3e-7b0e-4d57-9a59-4a4f5b7a6c11")
    assert (write.resource, write.subresource, write.namespace, write.name) == (
        "virtualmachines",
        "",
        "team-a",
        "vm-1",
    )
    assert write.uid == "u-1"
    assert write.mutations == ('{"webhook":"w"}',)


def test_of_the_answer_only_what_proves_something_is_kept() -> None:
    meta = {
        "uid": "u-2",
        "labels": {"a": "b"},
        "ownerReferences": [{"uid": "u-0", "name": "another"}, {"uid": "u-1", "name": "vm-1", "controller": True}],
    }
    status = {"phase": "Running", "printableStatus": "Running", "ready": True, "nodeName": "node-1"}
    write = read(responseObject={"metadata": meta, "spec": {"replicas": 3, "domain": {}}, "status": status})
    assert (write.uid, write.owner, write.replicas) == ("u-2", Owner("u-1", "vm-1", controller=True), 3)
    assert write.status == Status(phase="Running", printableStatus="Running", ready=True)


def test_an_autoscalers_report_is_kept() -> None:
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 198}}}]
    status = {"currentReplicas": 1, "desiredReplicas": 3, "currentMetrics": metrics, "conditions": []}
    assert read(responseObject={"status": status}).status == Status(
        currentReplicas=1, desiredReplicas=3, currentMetrics=metrics
    )
    assert read(responseObject={"status": {"currentMetrics": None}}).status == NO_STATUS


def test_a_status_instead_of_an_object_is_no_objects_status() -> None:
    write = read(responseObject={"kind": "Status", "metadata": {}, "status": "Success", "code": 201})
    assert (write.status, write.uid, write.owner, write.replicas) == (NO_STATUS, "", None, None)


def test_what_the_policy_leaves_out_is_empty() -> None:
    bare = event(level="Metadata", user={})
    for key in ("impersonatedUser", "responseObject", "annotations", "userAgent", "objectRef", "responseStatus"):
        del bare[key]
    write = write_of(line(bare))
    assert write is not None
    assert (write.user, write.impersonated, write.resource, write.name) == ("", None, "", "")
    assert (write.code, write.uid, write.status, write.mutations) == (0, "", NO_STATUS, ())
    assert read(responseObject=None, annotations=None).uid == ""


@pytest.mark.parametrize(
    "changes",
    [{"verb": "get"}, {"verb": "list"}, {"verb": "watch"}, {"stage": "RequestReceived"}, {"stage": "Panic"}],
)
def test_what_is_no_answered_write_is_none(changes: dict[str, str]) -> None:
    assert write_of(line(event(**changes))) is None


def test_a_generated_name_is_in_the_answer_only() -> None:
    reference = {"resource": "pods", "namespace": "team-a", "apiVersion": "v1"}
    answer = {"metadata": {"name": "virt-launcher-vm-1-x7k2p", "generateName": "virt-launcher-vm-1-"}}
    assert read(objectRef=reference, responseObject=answer).name == "virt-launcher-vm-1-x7k2p"


@pytest.mark.parametrize("text", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\xfe no JSON\n", line(event())[:-2]])
def test_what_is_no_audit_event_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="_Event"):
        write_of(text)


RECORD: dict[str, Any] = {
    "time": "2026-11-23T11:46:59.964291Z",
    "request_id": "0e0922a987e848bc96dcbc4d12d0c7aa",
    "user": "system:serviceaccount:team-a:tenant",
    "tenant": "team-a",
    "namespace": "team-a",
    "verb": "create",
    "name": "vm-1",
    "code": 201,
    "reason": "",
    "verdict": "allowed",
    "latency_ms": 24.887,
}


def test_an_access_record_says_whose_request_it_was_and_what_became_of_it() -> None:
    expected = AccessRecord(
        RECORD["request_id"],
        RECORD["user"],
        "team-a",
        "team-a",
        "create",
        code=201,
        verdict="allowed",
        latency_ms=24.887,
    )
    assert access_record_of(json.dumps(RECORD).encode()) == expected


def test_what_the_gateway_writes_is_read(tmp_path: Path) -> None:
    with closing(AccessLog(tmp_path / "access.log")) as log:
        log.write(
            Record("id", user="u", tenant="t", namespace="n", verb="create", code=201, allowed=True), timedelta()
        )
    written = (tmp_path / "access.log").read_bytes()
    assert access_record_of(written) == AccessRecord("id", "u", "t", "n", "create", 201, "allowed")
    assert written.startswith(ACCESS_RECORD_START)
