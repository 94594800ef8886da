"""The cells of the matrix, what is expected of them, and what an answer says of authorization."""

from collections import Counter
from dataclasses import replace

import pytest

from clusters.gateway.offered import ENDPOINTS
from tests.unit.access_support import A, B, cell, denial
from virtflow.access.judgement import judge
from virtflow.access.matrix import TARGETS, VERBS, WHOLE_CLUSTER, Cell, Target, cells, expected, homes
from virtflow.access.requests import request_at
from virtflow.kube import Object
from virtflow.kube.resources import SECRETS, VM_ACTIONS, VMS
from workflows.access_models import Door, Outcome

GATEWAYS: Object = {"details": {"causes": [{"reason": "RequestId", "message": "id"}]}}
START = Target(VM_ACTIONS, "start")


def forbidden(why: str) -> Object:
    return {"reason": "Forbidden", "message": f'pods "access-probe" is forbidden: {why}'}


def test_every_resource_is_tried_with_every_verb_in_every_place() -> None:
    places = Counter((str(each.target), each.place) for each in cells(A, [A, B]))
    assert {target for target, _ in places} == {str(target) for target in TARGETS}
    for target in TARGETS:
        for namespace in (A.namespace, B.namespace, "kube-system", "default", "kubevirt", "virtflow-system"):
            assert places[str(target), namespace] == len(target.verbs)
        assert places[str(target), WHOLE_CLUSTER] == (0 if target.subresource else 4)
    assert len({(str(each.target), each.verb, each.place) for each in cells(A, [A, B])}) == 330
    assert sum(places.values()) == 330


def test_every_user_tries_everything() -> None:
    two = replace(B, users=["tenant-b-user", "tenant-b-other"])
    tried = Counter((str(each.target), each.verb, each.place) for each in cells(two, [A, two]))
    assert set(tried.values()) == {2}
    users = {each.user for each in cells(two, [A, two])}
    assert users == {f"system:serviceaccount:{B.namespace}:{user}" for user in two.users}
    assert homes([A, two]) == {cell().user: A.namespace} | dict.fromkeys(users, B.namespace)


def test_a_tenant_may_what_its_role_says_at_home_alone() -> None:
    may = [each for each in cells(A, [A, B]) if expected(each, Door.KUBE_APISERVER) is Outcome.ALLOWED]
    assert {(str(each.target), each.place) for each in may} == {("virtualmachines", A.namespace)}
    assert [each.verb for each in may] == ["get", "list", "create", "update"]


def test_who_may_everything_may_it_at_home_alone() -> None:
    for each in cells(B, [A, B]):
        may = expected(each, Door.KUBE_APISERVER) is Outcome.ALLOWED
        assert may == (each.place == B.namespace)


def test_the_gateway_is_expected_to_offer_what_it_does() -> None:
    """The matrix says on its own what is offered: the gateway's table is what is tested."""
    served = {(each.resource, each.subresource, verb) for each in ENDPOINTS for verb in each.verbs.values()}
    offered = {
        (target.resource, target.subresource, verb)
        for target in TARGETS
        for verb in target.verbs
        if expected(Cell(B, B.user, target, verb, B.namespace), Door.GATEWAY) is Outcome.ALLOWED
    }
    assert offered == served


@pytest.mark.parametrize("door", Door)
def test_every_write_is_a_dry_run_of_what_is_not_there(door: Door) -> None:
    for each in cells(A, [A, B]):
        request = request_at(door, each)
        if each.verb in ("get", "list", "watch"):
            assert request.method == "GET"
            assert request.body is None
        elif each.target.subresource:
            assert request.body == {"dryRun": ["All"]}
        else:
            assert request.query["dryRun"] == "All"
            # It alone has no name: so its selector chooses nothing.
            assert ("labelSelector" in request.query) == (each.verb == "deletecollection")
        assert ("access-probe" in request.path) == (each.verb in ("get", "update", "patch", "delete"))


@pytest.mark.parametrize(
    ("door", "each", "path", "query"),
    [
        (Door.GATEWAY, cell("list"), "/virtualmachines", {"namespace": A.namespace}),
        (Door.GATEWAY, cell("list", WHOLE_CLUSTER), "/virtualmachines", {"allNamespaces": "true"}),
        (
            Door.GATEWAY,
            cell("update", B.namespace, START),
            "/virtualmachines/access-probe/start",
            {"namespace": B.namespace},
        ),
        (
            Door.KUBE_APISERVER,
            cell("update", B.namespace, START),
            f"/apis/subresources.kubevirt.io/v1/namespaces/{B.namespace}/virtualmachines/access-probe/start",
            {},
        ),
        (Door.KUBE_APISERVER, cell("watch", WHOLE_CLUSTER, Target(SECRETS)), "/api/v1/secrets", {"watch": "true"}),
    ],
)
def test_where_a_request_goes(door: Door, each: Cell, path: str, query: dict[str, str]) -> None:
    request = request_at(door, each)
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        (200, {}, Outcome.ALLOWED),
        (201, {}, Outcome.ALLOWED),
        (404, {"reason": "NotFound", "message": 'pods "access-probe" not found'}, Outcome.ALLOWED),
        (409, {"reason": "AlreadyExists"}, Outcome.ALLOWED),
        (409, {"reason": "Conflict"}, Outcome.ALLOWED),
        (422, {"reason": "Invalid", "message": "is invalid"}, Outcome.ALLOWED),
        (405, {"reason": "MethodNotAllowed"}, Outcome.ALLOWED),
        (403, forbidden("exceeded quota: q, requested: pods=1"), Outcome.ALLOWED),
        (403, forbidden("failed quota: q: must specify requests.memory"), Outcome.ALLOWED),
        (403, forbidden("status unknown for quota: q, resources: pods"), Outcome.ALLOWED),
        (403, forbidden("[minimum memory usage per Container is 1Gi, but request is 16Mi.]"), Outcome.ALLOWED),
        (403, {"reason": "Forbidden", "message": 'admission webhook "w" denied the request: no'}, Outcome.ALLOWED),
        (403, forbidden('User "gateway" cannot impersonate resource "serviceaccounts"'), Outcome.UNCLEAR),
        (403, {"message": "<html>exceeded quota: q"}, Outcome.UNCLEAR),
        (302, {}, Outcome.UNCLEAR),
        (404, {"message": "<html>not found"}, Outcome.UNCLEAR),
        (
            400,
            {"reason": "BadRequest", "message": "Client sent an HTTP request to an HTTPS server."},
            Outcome.UNCLEAR,
        ),
        (403, denial(cell()), Outcome.DENIED),
        (401, {"message": "Unauthorized"}, Outcome.UNCLEAR),
        (429, {}, Outcome.UNCLEAR),
        (500, {}, Outcome.UNCLEAR),
        (503, denial(cell()), Outcome.UNCLEAR),
        (0, {}, Outcome.UNCLEAR),
    ],
)
@pytest.mark.parametrize("door", Door)
def test_what_an_answer_says(door: Door, code: int, status: Object, outcome: Outcome) -> None:
    assert judge(cell(), door, code, status) is outcome


@pytest.mark.parametrize(
    "other",
    [cell("list"), cell(place=B.namespace), cell(place=WHOLE_CLUSTER), cell(target=Target(SECRETS)), cell(actor=B)],
)
def test_a_refusal_of_another_request_is_no_refusal_of_this_one(other: Cell) -> None:
    assert judge(other, Door.KUBE_APISERVER, 403, denial(other)) is Outcome.DENIED
    assert judge(cell(), Door.KUBE_APISERVER, 403, denial(other)) is not Outcome.DENIED


@pytest.mark.parametrize(
    ("verb", "code", "status", "outcome"),
    [
        ("watch", 405, GATEWAYS, Outcome.NOT_OFFERED),
        ("watch", 400, GATEWAYS, Outcome.NOT_OFFERED),
        ("watch", 200, {}, Outcome.ALLOWED),
        ("watch", 401, GATEWAYS, Outcome.UNCLEAR),
        ("watch", 429, GATEWAYS, Outcome.UNCLEAR),
        ("watch", 503, GATEWAYS, Outcome.UNCLEAR),
        ("get", 404, GATEWAYS, Outcome.NOT_OFFERED),
        ("get", 400, GATEWAYS, Outcome.UNCLEAR),
        ("get", 403, {**GATEWAYS, "message": "Namespace is not a tenant's"}, Outcome.UNCLEAR),
        ("get", 403, {**GATEWAYS, **denial(cell())}, Outcome.DENIED),
    ],
)
def test_what_the_gateways_own_answers_say(verb: str, code: int, status: Object, outcome: Outcome) -> None:
    assert judge(cell(verb), Door.GATEWAY, code, status) is outcome


def test_all_verbs_are_rbacs() -> None:
    assert set(VERBS) == {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
    assert Target(VMS).verbs == VERBS
