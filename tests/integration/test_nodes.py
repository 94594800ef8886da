"""Nodes that fail, fall silent or go, and launcher pods that end by themselves: the VM comes back elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clusters.kubevirt.controller.heartbeat import TIMEOUT, beat
from clusters.local.manifests import nodes
from tests.integration.machines import NAME, event_saying, instance, is_ended, is_running, pod, started
from tests.integration.support import Tenant, uid_of
from virtflow.kube import Informer, KubeClient, KubeError, Object
from virtflow.kube.resources import NODES, PODS

pytestmark = pytest.mark.anyio

EXIT_CODE, NOT_READY = "virtflow/exit-code", "virtflow/not-ready"
SOON = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
"""Instead of the five minutes after which pods leave a node that is not ready."""

COLLECTED = timedelta(minutes=3)
"""The pod garbage collector looks every 20 s, and leaves the pods of a node that is gone alone for 40 s."""


@pytest.fixture
async def spare(kubeconfig: Path) -> AsyncIterator[Object]:
    """A further node, which pods with its name in their affinity prefer."""
    _, body = nodes(1)[0]
    name = "spare"
    body["metadata"] |= {"name": name}
    body["metadata"]["labels"]["kubernetes.io/hostname"] = name
    async with await KubeClient.connect(kubeconfig) as kube:
        informer = Informer(kube, NODES)
        async with informer.running():
            await kube.create(NODES, body)
            async with asyncio.timeout(60):
                node = await informer.wait_for("", name, lambda node: bool(node and has_beaten(node)))
            assert node is not None
            try:
                yield node
            finally:
                await kube.delete(NODES, name)


def is_ready(node: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", []))


def has_beaten(node: Object) -> bool:
    return (
        is_ready(node)
        and "kubevirt.io/heartbeat" in node["metadata"]["annotations"]
        and not node["spec"].get("taints")
    )


def preferring(node: Object) -> Object:
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node["metadata"]["name"]]}
    preference = {"weight": 100, "preference": {"matchExpressions": [term]}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}


async def annotate(tenant: Tenant, node: Object, annotations: Object) -> None:
    await tenant.kube.patch(NODES, node["metadata"]["name"], {"metadata": {"annotations": annotations}})


async def test_a_vm_leaves_a_node_that_is_not_ready(tenant: Tenant, spare: Object) -> None:
    first = await started(tenant, affinity=preferring(spare), tolerations=SOON)
    assert first["status"]["nodeName"] == spare["metadata"]["name"]
    await annotate(tenant, spare, {NOT_READY: "the container runtime is down"})
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    assert instance(tenant)["status"]["nodeName"] != spare["metadata"]["name"]
    assert pod(tenant)["spec"]["nodeName"] == instance(tenant)["status"]["nodeName"]


async def test_a_vm_comes_back_after_its_node_was_deleted(tenant: Tenant, spare: Object) -> None:
    first = await started(tenant, affinity=preferring(spare))
    assert first["status"]["nodeName"] == spare["metadata"]["name"]
    await tenant.kube.delete(NODES, spare["metadata"]["name"])
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)), COLLECTED)
    assert instance(tenant)["status"]["nodeName"] != spare["metadata"]["name"]


async def test_a_silent_node_gets_no_more_instances_and_those_without_a_living_pod_have_failed(
    tenant: Tenant, spare: Object
) -> None:
    first = await started(tenant, "Once", affinity=preferring(spare))
    node, lost = spare["metadata"]["name"], pod(tenant)
    await annotate(tenant, spare, {NOT_READY: "the kubelet has stopped"})
    informer = Informer(tenant.kube, NODES)
    async with informer.running(), asyncio.timeout(60):
        # Before that virt-handler would speak for it once more.
        await informer.wait_for("", node, lambda found: bool(found and not is_ready(found)))
        await annotate(tenant, spare, beat(datetime.now(UTC) - 2 * TIMEOUT)["metadata"]["annotations"])
        marked = await informer.wait_for("", node, lambda found: bool(found and not is_schedulable(found)))
    assert marked is not None
    assert instance(tenant)["status"]["phase"] == "Running"
    await tenant.kube.patch(
        PODS, lost["metadata"]["name"], {"metadata": {"annotations": {EXIT_CODE: "1"}}}, tenant.namespace
    )
    await tenant.until(lambda: is_ended(tenant, "Failed"))
    assert uid_of(instance(tenant)) == uid_of(first)
    assert instance(tenant)["status"]["reason"] == "NodeUnresponsive"
    message = f"virt-handler on node {node} is not responsive, marking VMI as failed"
    of_instance = await event_saying(tenant.kube, tenant.namespace, message)
    assert (of_instance["type"], of_instance["reason"]) == ("Normal", "NodeUnresponsive")
    of_node = await event_saying(
        tenant.kube, "default", "virt-handler is not responsive, marking node as unresponsive"
    )
    assert of_node["involvedObject"]["name"] == node


def is_schedulable(node: Object) -> bool:
    return bool(node["metadata"]["labels"]["kubevirt.io/schedulable"] == "true")


async def test_every_node_is_heard_of(kubeconfig: Path) -> None:
    async with await KubeClient.connect(kubeconfig) as kube:
        found = await kube.list(NODES)
    assert found
    for node in found:
        assert "kubevirt.io/heartbeat" in node["metadata"]["annotations"]
        assert is_schedulable(node)


@pytest.mark.parametrize(("code", "phase"), [("1", "Failed"), ("0", "Succeeded")])
async def test_an_instance_ends_as_its_launcher_pod_does(tenant: Tenant, code: str, phase: str) -> None:
    await started(tenant, "Once")
    name = pod(tenant)["metadata"]["name"]
    await tenant.kube.patch(PODS, name, {"metadata": {"annotations": {EXIT_CODE: code}}}, tenant.namespace)
    await tenant.until(lambda: is_ended(tenant, phase))
    assert pod(tenant)["status"]["phase"] == phase


async def test_an_evicted_vm_comes_back(tenant: Tenant) -> None:
    first, lost = await started(tenant), pod(tenant)
    await evict(tenant, lost)
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    assert uid_of(pod(tenant)) != uid_of(lost)


async def evict(tenant: Tenant, evicted: Object) -> None:
    meta = {"name": evicted["metadata"]["name"], "namespace": tenant.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    await tenant.kube.request("POST", PODS.path(tenant.namespace, meta["name"], "eviction"), body=body)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("LiveMigrate", f"VMI {NAME} is configured with an eviction strategy but is not live-migratable"),
        ("External", 'Eviction triggered evacuation of VMI "{namespace}/test-vm"'),
    ],
)
async def test_an_eviction_that_is_to_migrate_a_vm_is_refused(tenant: Tenant, strategy: str, message: str) -> None:
    first = await started(tenant, evictionStrategy=strategy)
    with pytest.raises(KubeError) as refused:
        await evict(tenant, pod(tenant))
    webhook = 'admission webhook "virt-launcher-eviction-interceptor.kubevirt.io" denied the request: '
    assert refused.value.code == 429
    assert refused.value.message == webhook + message.format(namespace=tenant.namespace)
    assert is_running(tenant)
    assert uid_of(instance(tenant)) == uid_of(first)
