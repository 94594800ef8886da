"""virt-api behind a real kube-apiserver answers as a real KubeVirt was recorded to: code, warnings, Status.

Everything is a dry run: nothing is stored, and admission sees it all.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.admission_cases import CASES, Case
from virtflow.kube import KubeClient, Object, Response
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
