"""Tenants as YAML: what a file may say, and how one that says something else is refused."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtflow.errors import InputError
from virtflow.kube.resources import KNOWN
from virtflow.tenant_files import TenantFile, check_name, load_tenant
from workflows.tenant_models import OPERATOR, PolicyRule, TenantSpec

FEATURES = Path(__file__).parents[2] / "features"


def load(folder: Path, text: str) -> TenantFile:
    (folder / "bank.yaml").write_text(text)
    return load_tenant(folder / "bank.yaml")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as raised:
        load(folder, text)
    return str(raised.value)


@pytest.mark.parametrize("text", ["", "# nothing said\n", "{}", "quota: {}\nlimits: []\n"])
def test_every_key_is_optional(tmp_path: Path, text: str) -> None:
    said = load(tmp_path, text)
    assert said.spec == TenantSpec(["user"], OPERATOR, {}, [])
    assert said.namespace == ""


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    said = load(
        tmp_path,
        """
        namespace: vault
        users: [alice, bob]
        role:
          - {apiGroups: [""], resources: [pods, pods/log], verbs: [get]}
        quota: {pods: 4, requests.cpu: 1.5, limits.memory: 8Gi, count/virtualmachines.kubevirt.io: "2"}
        limits:
          - {type: Container, default: {cpu: 500m}, max: {memory: 2Gi}}
          - {type: Pod, max: {cpu: 4}}
        """,
    )
    assert said.namespace == "vault"
    assert said.spec == TenantSpec(
        ["alice", "bob"],
        [PolicyRule([""], ["pods", "pods/log"], ["get"])],
        {"pods": "4", "requests.cpu": "1.5", "limits.memory": "8Gi", "count/virtualmachines.kubevirt.io": "2"},
        [
            {"type": "Container", "default": {"cpu": "500m"}, "max": {"memory": "2Gi"}},
            {"type": "Pod", "max": {"cpu": "4"}},
        ],
    )


def test_a_role_without_rules_allows_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "role: []").spec.role == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quotas: {pods: 1}", "line 1, quotas: there is no such key: remove it, or is it quota?"),
        ("\nusers: [a]\nquota:\n  pods: 1 Gi\n", "line 4, quota.pods: '1 Gi' is no quantity"),
        ("quota:\n  pods: -1\n", "line 2, quota.pods: -1 is below zero"),
        ("quota:\n  pods: true\n", "line 2, quota.pods: write a quantity"),
        ("quota:\n  pods: 1.5\n", "line 1: 1.5 pods cannot be counted: write a whole number"),
        ("quota:\n  request.memory: 1Gi\n", "a quota knows no 'request.memory'. Is it requests.memory?"),
        ("quota:\n  virtualmachines: 1\n", "Any kind is counted by count/<plural>.<group>"),
        ("role:\n  - apiGroups: [a]\n    resources: [b]\n    verbs: []\n", "line 4, role[0].verbs: "),
        (
            "role:\n  - {apiGroups: [a], resources: [b], verbs: [gett]}\n",
            "'gett' is no verb: write some of get, list",
        ),
        ("role:\n  - {apiGroups: [a], verbs: [get]}\n", "line 2, role[0].resources: Field required"),
        ("users: []", "line 1, users: List should have at least 1 item"),
        ("users: [Alice]", "line 1, users[0]: 'Alice' is no name"),
        ("users: [a, a]", "a user is there twice"),
        ("namespace: -a", "line 1, namespace: '-a' is no name"),
        ("namespace: " + 27 * "a", "is no name: write at most 26"),
        ("namespace: 7", "line 1, namespace: Input should be a valid string"),
        ("limits:\n  - {type: Pod, default: {cpu: 1}}\n", "line 2, limits[0]: a Pod has no default"),
        ("limits:\n  - {type: Container, maximum: {cpu: 1}}\n", "there is no such key: remove it, or is it max?"),
        ("role:\n", "line 1, role: it must be a list, [] an empty one"),
        ("namespace:\n", "line 1, namespace: Input should be a valid string"),
        ("limits:\n  - {type: Pod, max: }\n", "line 2, limits[0].max: "),
        ("limits:\n  - {type: Pod, max: {memroy: 1Gi}}\n", "limits[0]: max: a Pod has no 'memroy'. Is it memory?"),
        (
            "limits:\n  - {type: Container, min: {storage: 1}}\n",
            "min: a Container has no 'storage': it has cpu, memory,",
        ),
        ("limits:\n  - {type: PersistentVolumeClaim, max: {memory: 1}}\n", "has no 'memory': it has storage"),
        (
            "limits:\n  - {type: Container, default: {cpu: 1}, max: {cpu: 900m}}\n",
            "line 2, limits[0]: default is 1 cpu, which is above max, 900m",
        ),
        (
            "limits:\n  - {type: Pod, min: {memory: 1Gi}, max: {memory: 1G}}\n",
            "min is 1Gi memory, which is above max",
        ),
        (
            "role:\n  - {apiGroups: [kubvirt.io], resources: [b], verbs: [get]}\n",
            "line 2, role[0].apiGroups[0]: there is no API group 'kubvirt.io'. Is it kubevirt.io?",
        ),
        (
            "role:\n  - {apiGroups: [kubevirt.io], resources: [virtualmachine], verbs: [get]}\n",
            "line 2, role[0].resources[0]: there is no resource 'virtualmachine'. Is it virtualmachines?",
        ),
        (
            "role:\n  - {apiGroups: [''], resources: [pods, pod/log], verbs: [get]}\n",
            "role[0].resources[1]: there is no resource 'pod'. Is it pods?",
        ),
        (
            "quota: {count/virtualmachins.kubevirt.io: 1}",
            "there is no resource 'virtualmachins'. Is it virtualmachines?",
        ),
        ("quota: {count/virtualmachines.kubvirt.io: 1}", "there is no API group 'kubvirt.io'. Is it kubevirt.io?"),
        ("- a", "line 1: it must be a mapping of keys and values"),
        ("quota: {pods: 1}\nquota: {pods: 2}\n", "the key 'quota' is there twice"),
        ("quota: &a {pods: 1}\nlimits: *a\n", "it has an alias"),
        ("quota: [", "while parsing"),
        ("[" * 2000, "it is nested too deeply"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith("bank.yaml describes no tenant: ")
    assert words in said


@pytest.mark.parametrize("resource", sorted({resource.plural for resource in KNOWN}))
def test_a_resource_that_is_known_is_no_other_ones_mistake(tmp_path: Path, resource: str) -> None:
    rule = f"{{apiGroups: ['', example.com], resources: [{resource}, '*', {resource}/status, widgets], verbs: [get]}}"
    assert load(tmp_path, f"role: [{rule}]").spec.role[0].resources[0] == resource


def test_what_a_node_offers_beside_can_be_limited(tmp_path: Path) -> None:
    said = load(tmp_path, "limits: [{type: Container, max: {example.com/gpu: 1, hugepages-2Mi: 1Gi}}]")
    assert said.spec.limits == [{"type": "Container", "max": {"example.com/gpu": "1", "hugepages-2Mi": "1Gi"}}]


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, "users: [A]\nquota: {pods: x}\nrole: 1\n")
    assert [place in said for place in ("line 1, users[0]", "line 2, quota.pods", "line 3, role")] == [True] * 3


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(InputError, match="it cannot be read: Is a directory"):
        load_tenant(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"users: [\xff]")
    with pytest.raises(InputError, match="can't decode"):
        load_tenant(tmp_path / "b.yaml")


def test_the_projects_own_files_describe_tenants() -> None:
    files = list((FEATURES / "tenants").glob("*.yaml"))
    assert files
    for file in files:
        load_tenant(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["get", "1Gi"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "verbs", "apiGroups", "resources", "max", "pods", "x"]), inner)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["namespace", "users", "role", "quota", "limits", "x"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(KEYS, VALUES, max_size=4) | VALUES)
def test_any_yaml_is_a_tenant_or_is_refused_in_words(tmp_path: Path, said: object) -> None:
    text = yaml.safe_dump(said, allow_unicode=True)
    try:
        spec = load(tmp_path, text).spec
    except InputError as error:
        assert str(error).startswith("bank.yaml describes no tenant: ")  # noqa: PT017 - or it is none
    else:
        assert spec.users
        assert all(rule.verbs and rule.resources for rule in spec.role)


@given(name=st.text(alphabet="ab-09A_. é\n", max_size=60))
def test_a_name_that_is_taken_is_one_that_kubernetes_takes(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert 1 <= len(f"{name}-{name}-12345678") <= 63
    assert name.isascii()
    assert set(name) <= set("ab-09")
    assert not name.startswith("-")
    assert not name.endswith("-")
