"""virt-api behind a real kube-apiserver answers as a real KubeVirt was recorded to: code, warnings, Status.

Everything is a dry run: nothing is stored, and admission sees it all.
"""

import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters.kubevirt.crds import schema
from tests.unit.admission_cases import CASES, Case
from tests.unit.schema_values import full, values
from virtflow.kube import KubeClient, KubeError, Object, Response
from virtflow.kube.resources import VMIRS, VMIS, VMS

RESOURCES = {resource.kind: resource for resource in (VMS, VMIS, VMIRS)}
NAMESPACE = "default"


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as client:
        yield client


async def dry_run(kube: KubeClient, manifest: Object, validation: str | None = None) -> Response:
    query = {"dryRun": "All"} | ({"fieldValidation": validation} if validation else {})
    path = RESOURCES[manifest["kind"]].path(NAMESPACE)
    return await kube.send("POST", path, body=manifest, query=query)


def expected_status(case: Case) -> Object:
    """The Status of a refusal, without the kube-apiserver's own decoration."""
    cause: Object = {"message": case.message}
    if case.field is not None:
        cause |= {"reason": "FieldValueInvalid", "field": case.field}
    if case.by == "kube-apiserver":
        message = f'{case.kind}.kubevirt.io "{case.name}" is invalid: {case.field}: {case.message}'
        details = {"name": case.name, "group": "kubevirt.io", "kind": case.kind, "causes": [cause]}
        return {"message": message, "reason": "Invalid", "details": details}
    message = f'admission webhook "{case.by}.kubevirt.io" denied the request: {case.message}'
    if case.code == 400:
        return {"message": message}
    return {"message": message, "reason": "Invalid", "details": {"causes": [cause]}}


def check(case: Case, answer: Response, warnings: list[str]) -> None:
    assert answer.warnings == [f'299 - "{warning}"' for warning in warnings]
    if case.by is None:
        assert answer.code == 201
    else:
        assert answer.code == case.code
        found = {key: answer.body[key] for key in ("message", "reason", "details") if key in answer.body}
        assert found == expected_status(case)


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
async def test_by_default_an_unknown_field_is_a_warning(kube: KubeClient, case: Case) -> None:
    warnings = [case.warning] if case.warning else []
    if case.unknown_field:
        warnings = [f'unknown field \\"{case.unknown_field}\\"']
    check(case, await dry_run(kube, case.manifest(NAMESPACE)), warnings)


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
async def test_under_strict_validation_an_unknown_field_is_refused(kube: KubeClient, case: Case) -> None:
    answer = await dry_run(kube, case.manifest(NAMESPACE), "Strict")
    if case.unknown_field is None:
        check(case, answer, [case.warning] if case.warning else [])
        return
    assert (answer.code, answer.body["reason"], answer.warnings) == (400, "BadRequest", [])
    assert answer.body["message"] == (
        f'{case.kind} in version "v1" cannot be handled as a {case.kind}: '
        f'strict decoding error: unknown field "{case.unknown_field}"'
    )


def words_of_kubectl(case: Case) -> str:
    """What `kubectl create`, which asks for strict validation, was recorded to print of a case."""
    error = 'error when creating "STDIN": '
    if case.unknown_field:
        return (
            f'Error from server (BadRequest): {error}{case.kind} in version "v1" cannot be handled as a {case.kind}: '
            f'strict decoding error: unknown field "{case.unknown_field}"'
        )
    if case.by is None:
        return f"Warning: {case.warning}" if case.warning else ""
    if case.code == 400:
        return (
            f'Error from server: {error}admission webhook "{case.by}.kubevirt.io" denied the request: {case.message}'
        )
    what = f'{case.kind} "{case.name}"' if case.by == "kube-apiserver" else "request"
    return f"The {what} is invalid: {case.field or ''}: {case.message}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_kubectl_says_what_it_was_recorded_to_say(kubectl: Path, kubeconfig: Path, case: Case) -> None:
    said = subprocess.run(
        [kubectl, f"--kubeconfig={kubeconfig}", "create", "--dry-run=server", "-f", "-"],
        input=json.dumps(case.manifest(NAMESPACE)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stderr.strip() == words_of_kubectl(case)
    assert (said.returncode == 0) == (case.by is None)


def objects_of(rule: Object, path: str) -> list[str]:
    """Where the schema has objects that are closed, in the value with every field."""
    if path.endswith(".metadata") or path == "metadata":
        return []
    if rule.get("type") == "array":
        return objects_of(rule["items"], f"{path}[0]")
    if "additionalProperties" in rule or rule.get("type") != "object":
        return []
    here = [] if "x-kubernetes-preserve-unknown-fields" in rule else [path]
    inner = rule.get("properties", {}).items()
    return here + [found for name, part in inner for found in objects_of(part, f"{path}.{name}".lstrip("."))]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", list(RESOURCES))
async def test_an_unknown_field_anywhere_is_refused_under_strict_validation(kube: KubeClient, kind: str) -> None:
    places = objects_of(schema(kind), "")
    obj = full(schema(kind), extra="unknownToKubevirt")
    identity = {"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": "full", "namespace": NAMESPACE}}
    answer = await dry_run(kube, obj | identity, "Strict")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    found = re.findall('unknown field "([^"]+)"', answer.body["message"])
    assert set(found) == {f"{place}.unknownToKubevirt".lstrip(".") for place in places}


@pytest.mark.anyio
async def test_an_unknown_field_is_else_warned_of_and_pruned(kube: KubeClient) -> None:
    manifest = next(case for case in CASES if case.case == "minimal").manifest(NAMESPACE)
    template = manifest["spec"]["template"]["spec"]
    disk = template["domain"]["devices"]["disks"][0] | {"colour": "red"}
    devices = template["domain"]["devices"] | {"disks": [disk]}
    spec = template | {"domain": template["domain"] | {"devices": devices}}
    manifest["spec"] = manifest["spec"] | {"template": {"spec": spec}}
    answer = await dry_run(kube, manifest)
    assert answer.code == 201
    assert answer.warnings == ['299 - "unknown field \\"spec.template.spec.domain.devices.disks[0].colour\\""']
    assert "colour" not in answer.body["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0]


def drawn(kind: str) -> list[Object]:
    """Some specs that the schema takes, always the same ones."""
    found: list[Object] = []

    @settings(derandomize=True, database=None, max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        found.append(data.draw(values(schema(kind)["properties"]["spec"], "template.spec")))

    draw()
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("kind", list(RESOURCES))
async def test_whatever_the_schema_takes_only_a_rule_can_refuse(kube: KubeClient, kind: str) -> None:
    for spec in drawn(kind):
        metadata = {"name": "drawn", "namespace": NAMESPACE}
        manifest = {"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
        answer = await dry_run(kube, manifest, "Strict")
        by_a_rule = re.match(r'admission webhook "[a-z-]+-validator\.kubevirt\.io"', answer.body.get("message", ""))
        assert answer.code == 201 or (answer.code == 422 and by_a_rule), (spec, answer.body)


@pytest.mark.anyio
async def test_a_new_instance_comes_back_with_defaults_and_a_first_status(kube: KubeClient) -> None:
    spec = next(case for case in CASES if case.case == "minimal").spec["template"]["spec"]
    manifest = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "defaults", "namespace": NAMESPACE},
        "spec": spec,
    }
    answer = await dry_run(kube, manifest, "Strict")
    assert answer.code == 201
    assert answer.body["status"]["phase"] == "Pending"
    assert answer.body["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]
    assert answer.body["spec"]["domain"]["memory"] == {"guest": "1Gi", "maxGuest": "4Gi"}
    assert answer.body["spec"]["networks"] == [{"name": "default", "pod": {}}]


@pytest.mark.anyio
async def test_kinds_are_served_with_the_short_names_and_subresources_of_kubevirt(kube: KubeClient) -> None:
    found = await kube.request("GET", "/apis/kubevirt.io/v1")
    names = {item["name"]: item.get("shortNames") for item in found["resources"]}
    assert names == {
        "virtualmachines": ["vm", "vms"],
        "virtualmachines/status": None,
        "virtualmachineinstances": ["vmi", "vmis"],
        "virtualmachineinstancereplicasets": ["vmirs", "vmirss"],
        "virtualmachineinstancereplicasets/status": None,
        "virtualmachineinstancereplicasets/scale": None,
    }


@pytest.mark.anyio
async def test_only_kubevirt_changes_a_stored_instance(kube: KubeClient) -> None:
    spec = next(case for case in CASES if case.case == "minimal").spec["template"]["spec"]
    # No node has this label: the instance stays as it is.
    body = {"metadata": {"name": "stored"}}
    await kube.create(VMIS, body | {"spec": spec | {"nodeSelector": {"no": "node"}}}, NAMESPACE)
    try:
        found = await kube.patch(VMIS, "stored", {"status": {"phase": "Succeeded"}}, NAMESPACE)
        assert found["status"]["phase"] != "Succeeded"
        with pytest.raises(KubeError, match="update of VMI object is restricted") as refused:
            await kube.patch(VMIS, "stored", {"spec": {"hostname": "other"}}, NAMESPACE)
        assert refused.value.code == 422
    finally:
        await kube.delete(VMIS, "stored", NAMESPACE)
