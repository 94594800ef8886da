"""virt-api's verdicts and defaults, held against what KubeVirt's own admission code was recorded to answer."""

from copy import deepcopy
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import yaml

from clusters.kubevirt.api.app import WEBHOOKS, answer
from clusters.kubevirt.api.mutate import mutate_new_instance
from clusters.kubevirt.api.rules.scheduling import topology_spread
from tests.unit.admission_cases import CASES, merged
from tests.unit.test_admission import patched
from virtflow.kube import Object

FOLDER = Path(__file__).parent / "admission_rules"
MINIMAL = next(case for case in CASES if case.case == "minimal").manifest("trace")
UNMODELLED = "does not model"


def load(name: str) -> Any:
    return yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)


def refused() -> list[Object]:
    return [case for name in ("reading", "pods", "hardware", "disks", "networks") for case in load(name)]


def machine(case: Object) -> Object:
    patch = case["machine"] if "machine" in case else {"template": {"spec": case["instance"]}}
    return MINIMAL | {"spec": merged(MINIMAL["spec"], patch)}


def ask(path: str, obj: Object) -> Object:
    kind, judge = WEBHOOKS[path]
    return answer(kind, judge, obj, None, "tenant")


def admit(vm: Object) -> Object:
    """What a machine that is created is answered."""
    response = ask("/virtualmachines-mutate", vm)
    return ask("/virtualmachines-validate", patched(vm, response)) if response["allowed"] else response


def name(case: Object) -> str:
    return str(case.get("instance", case.get("machine")))[:100]


def whole(text: str) -> str:
    return text.replace("@", "spec.template.spec")


@pytest.mark.parametrize("case", refused(), ids=name)
def test_what_kubevirt_refuses_is_refused_in_its_words(case: Object) -> None:
    response = admit(machine(case))
    assert response["allowed"] is False
    status = response["status"]
    if "unreadable" in case:
        assert status == {"code": 400, "message": whole(case["unreadable"])}
        return
    assert (status["code"], status["reason"]) == (422, "Invalid")
    found = status["details"]["causes"]
    if "complaints" in case:
        # They come in no order: KubeVirt goes through a map.
        assert sorted(cause["message"] for cause in found) == sorted(map(whole, case["complaints"]))
        assert all(cause.keys() == {"message"} for cause in found)
        return
    wanted = [
        {"reason": f"FieldValue{reason}", "field": whole(field), "message": whole(message)}
        for reason, field, message in case["causes"]
    ]
    assert found == wanted
    rest = f", and {case['more']} more validation errors" if "more" in case else ""
    assert status["message"] == ", ".join(cause["message"] for cause in wanted) + rest


@pytest.mark.parametrize("case", load("accepted"), ids=name)
def test_what_kubevirt_takes_is_taken_or_said_not_to_be_modelled(case: Object) -> None:
    response = admit(machine(case))
    if case.get("unmodelled"):
        assert response["allowed"] is False
        assert all(UNMODELLED in cause["message"] for cause in response["status"]["details"]["causes"])
    else:
        assert response["allowed"] is True
        assert all(UNMODELLED in warning or "deprecated" in warning for warning in response["warnings"])


@pytest.mark.parametrize("case", [{"instance": {}, "becomes": {}}, *load("defaults")["cases"]], ids=name)
def test_an_instance_gets_kubevirts_defaults(case: Object) -> None:
    spec = merged(MINIMAL["spec"]["template"]["spec"], case["instance"])
    found = answered_instance(spec)["spec"]
    del found["domain"]["firmware"]
    found["domain"].setdefault("resources", {})
    assert found == merged(merged(spec, load("defaults")["always"]), case["becomes"])


def answered_instance(spec: Object) -> Object:
    vmi = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {}, "spec": deepcopy(spec)}
    response = ask("/virtualmachineinstances-mutate", vmi)
    assert response["allowed"], response
    return patched(vmi, response)


def test_the_first_status_follows_from_the_defaults() -> None:
    vmi = mutate_new_instance({"metadata": {}, "spec": {"domain": {"devices": {}, "memory": {"guest": "2Gi"}}}})
    assert vmi["status"]["memory"] == {"guestAtBoot": "2Gi", "guestCurrent": "2Gi", "guestRequested": "2Gi"}
    assert vmi["status"]["currentCPUTopology"] == {"cores": 1, "sockets": 1, "threads": 1}


def test_many_spread_constraints_cost_no_more_than_their_number() -> None:
    constraints = [
        {"topologyKey": f"zone-{number % 10_000}", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}
        for number in range(20_000)
    ]
    started = process_time()
    causes = list(topology_spread("spec", {"topologySpreadConstraints": constraints}))
    # 20 ms, and ten seconds and more if each were held against all.
    assert process_time() - started < 5
    assert len(causes) == 10_000
