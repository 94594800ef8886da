"""Whatever the API stores, with or without virt-api's defaults, a launcher pod can be made of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.api.mutate import mutate_new_instance
from clusters.kubevirt.controller.launcher import launcher_pod
from clusters.kubevirt.controller.vm import new_instance
from clusters.kubevirt.crds import schema
from clusters.kubevirt.objects import run_strategy
from tests.unit.schema_values import values
from tests.unit.virt_controller_support import make_vm


@settings(max_examples=60)
@given(st.data())
def test_a_pod_can_be_made_of_any_machine(data: st.DataObject) -> None:
    spec = data.draw(values(schema("VirtualMachine")["properties"]["spec"], "template.spec"))
    vm = make_vm() | {"spec": spec}
    vmi = new_instance(vm, "revision")
    vmi |= {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
    vmi["metadata"]["uid"] = "vmi-uid"
    pod = launcher_pod(mutate_new_instance(vmi))
    assert pod["spec"]["containers"][0]["name"] == "compute"
    assert run_strategy(vm) in (spec.get("runStrategy"), "Always", "Halted")
