"""Requests of the attacker's, by the thousand: paths, queries, bodies and how they are sent.

Each answer is looked at as it comes (`disorder.py`: no failure, JSON, nobody else's object), what was done is judged
at the end by the audit log (`test_verdict.py`). So most of these tests say little of an answer's code.
"""

import json
import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.attack.bodies import JSON, charsets, compressed, crafted, manifests, namespaces, values
from tests.attack.conftest import Battle
from tests.attack.effort import effort
from tests.attack.parties import KINDS, Platform, machine
from tests.attack.wire import Header, Wire, framed
from virtflow.kube import Object, Resource
from virtflow.kube.resources import HPAS, PODS, SECRETS, VMIRS, VMIS, VMS

PATHS = [f"/{kind.plural}" for kind in KINDS]
ACTIONS = ("start", "stop", "restart")
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "CONNECT", "PROPFIND", "PRI"]
NAMES = ["own", "victim", "a"]


def json_headers(battle: Battle) -> list[Header]:
    return [battle.bearer, ("Content-Type", JSON)]


def object_of(resource: Resource, name: str, namespace: object) -> Object:
    template = machine("")["spec"]["template"]
    labelled = {**template, "metadata": {"labels": {"app": name}}}
    bodies: dict[Resource, Object] = {
        VMS: {"spec": machine("")["spec"]},
        VMIS: {"spec": template["spec"]},
        VMIRS: {"spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": labelled}},
        HPAS: {"spec": {"scaleTargetRef": {"kind": VMIRS.kind, "name": name}, "maxReplicas": 1}},
        SECRETS: {"stringData": {"a": "b"}},
        PODS: {"spec": {"containers": [{"name": "c", "image": "registry.example/c"}], "nodeName": "nowhere"}},
    }
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **bodies[resource]}


# --- whose ---


@effort(500)
@given(st.data())
def test_namespaces_in_path_query_and_body(battle: Battle, wire: Wire, data: st.DataObject) -> None:
    """In all combinations, for all that is offered."""
    places = namespaces(battle.attacker.namespace, battle.victim.namespace)
    resource = data.draw(st.sampled_from(KINDS))
    method, one = data.draw(
        st.sampled_from([("GET", False), ("POST", False), ("GET", True), ("PUT", True), ("DELETE", True)])
    )
    name = data.draw(st.sampled_from(NAMES))
    in_query, in_body = data.draw(st.none() | places), data.draw(st.none() | places)
    body = json.dumps(object_of(resource, name, in_body)).encode() if method in ("POST", "PUT") else None
    query = [f"namespace={quote(in_query)}"] if in_query is not None else []
    query += data.draw(st.lists(st.sampled_from(["allNamespaces=true", f"namespace={battle.victim.namespace}"])))
    target = f"/{resource.plural}" + (f"/{name}" if one else "") + ("?" + "&".join(query) if query else "")
    answer = wire.exchange("namespaces", method, target, json_headers(battle), body)
    if battle.victim.namespace in (in_query, in_body):
        assert answer.code in (400, 403)


@effort(60)
@given(st.data())
def test_actions_on_whatever_machine(battle: Battle, wire: Wire, data: st.DataObject) -> None:
    place = data.draw(st.none() | namespaces(battle.attacker.namespace, battle.victim.namespace))
    name, action = data.draw(st.sampled_from(NAMES)), data.draw(st.sampled_from([*ACTIONS, "migrate", "..", ""]))
    query = "" if place is None else f"?namespace={quote(place)}"
    options = data.draw(st.none() | st.just({}) | st.dictionaries(st.sampled_from(["dryRun", "namespace"]), values))
    body = None if options is None else sendable(options)
    target = f"/virtualmachines/{name}/{action}{query}"
    answer = wire.exchange("actions", "PUT", target, json_headers(battle), body)
    if place == battle.victim.namespace:
        assert answer.code in (400, 403, 404)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_victims_objects_cannot_be_had(battle: Battle, wire: Wire, kind: Resource) -> None:
    victims = battle.victim.namespace
    for method, target, body in [
        ("GET", f"/{kind.plural}?namespace={victims}", None),
        ("GET", f"/{kind.plural}?allNamespaces=true", None),
        ("GET", f"/{kind.plural}/victim?namespace={victims}", None),
        ("DELETE", f"/{kind.plural}/victim?namespace={victims}", None),
        ("POST", f"/{kind.plural}?namespace={victims}", object_of(kind, "new", None)),
        ("POST", f"/{kind.plural}", object_of(kind, "new", victims)),
        ("PUT", f"/{kind.plural}/victim?namespace={victims}", object_of(kind, "victim", None)),
        ("PUT", f"/{kind.plural}/victim", object_of(kind, "victim", victims)),
    ]:
        sent = None if body is None else json.dumps(body).encode()
        answer = wire.exchange("victim's objects", method, target, json_headers(battle), sent)
        assert answer.code == 403
        assert "the-victims-secret" not in answer.body.decode()


# --- where ---

SEGMENTS = [
    "..", ".", "", "%2e%2e", "%2E.", "..%2f", "%2f", "%5c", "..\\", "%252e%252e", "%252f", "..;", ";a=b", "..;/",
    "%00", "%0d%0aX-A:%20b", "%0a", "%20", "%ff", "%c0%ae%c0%ae", "%ed%a0%80", "%e2%80%a5", "\u2024\u2024", "\uff0f",
    "%u002e", "%", "%2", "%zz", "?", "#", "*", "~", "a" * 300, "%61" * 100, "api", "apis", "v1", "kubevirt.io",
    "namespaces", "kube-system", "secrets", "pods", "virtualmachines", "own", "victim", "start", "status", "scale",
    "log", "exec", "proxy", "metrics", "openapi.json", "docs", "healthz", "readyz", "OWN", "own.", "own%20",
    "o\u0301wn", "\u043ewn",
]  # fmt: skip


@effort(500)
@given(st.data())
@example(None)
def test_paths_of_any_segments(battle: Battle, wire: Wire, data: st.DataObject | None) -> None:
    method, target = "GET", "/virtualmachines/" + "%2e%2e/" * 2000
    if data is not None:
        method = data.draw(st.sampled_from(METHODS[:7]))
        segments = st.sampled_from([*SEGMENTS, battle.victim.namespace]) | st.text(string.printable, max_size=8)
        parts = data.draw(st.lists(segments, max_size=7))
        base = data.draw(st.sampled_from([*PATHS, "", "/virtualmachines/own", f"/{battle.victim.namespace}"]))
        target = "/".join([base, *parts]) or "/"
    raw = target.encode("utf-8", "surrogatepass")
    if any(byte <= 0x20 or byte >= 0x7F for byte in raw):
        # Not what HTTP calls a target: perhaps it is a line of its own to the server.
        wire.volley("paths", framed(method, raw, [battle.bearer]), method)
    else:
        wire.exchange("paths", method, raw, [battle.bearer])


@effort(200)
@given(st.data())
def test_queries_of_any_kind(battle: Battle, wire: Wire, data: st.DataObject) -> None:
    keys = ["namespace", "allNamespaces", "dryRun", "fieldValidation", "watch", "labelSelector", "limit", "continue"]
    keys += ["fieldSelector", "propagationPolicy", "fieldManager", "force", "pretty", "timeout", "Namespace", "as"]
    found = [
        "true",
        "All",
        "Strict",
        "",
        "1e400",
        "*",
        "metadata.namespace=victim",
        "system:admin",
        "%00",
        "%ff",
        "%",
    ]
    found += [
        battle.victim.namespace,
        battle.attacker.namespace,
        "a" * 5000,
        "%2e%2e%2f",
        "a&namespace=b",
        "a;b=c",
        "+",
    ]
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(found)), max_size=4))
    separator = data.draw(st.sampled_from(["&", ";", "&&", "&amp;"]))
    path, method = data.draw(st.sampled_from(PATHS)), data.draw(st.sampled_from(["GET", "POST"]))
    target = f"{path}?{separator.join(f'{key}={value}' for key, value in pairs)}"
    body = json.dumps(machine("a")).encode() if method == "POST" else None
    wire.exchange("queries", method, target, json_headers(battle), body)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/virtualmachines", "/virtualmachines/own", "/pods/own/exec", "*", "/", "//"])
def test_methods_of_any_kind(battle: Battle, wire: Wire, method: str, path: str) -> None:
    # After a CONNECT nothing more is read as HTTP.
    headers = [battle.bearer, *([("Connection", "close")] if method == "CONNECT" else [])]
    wire.volley("methods", framed(method, path, headers), method)


# --- what ---


@pytest.fixture(scope="module")
def owner(battle: Battle, platform: Platform) -> Object:
    """The victim's machine, for who would like to be its child."""
    found = platform.found(VMS, "victim", battle.victim.namespace)
    assert found is not None
    metadata: Object = found["metadata"]
    return metadata


@effort(400)
@given(st.data())
def test_manifests_with_what_is_not_meant_to_be_there(
    battle: Battle, wire: Wire, owner: Object, data: st.DataObject
) -> None:
    manifest = data.draw(manifests(battle.attacker.namespace, battle.victim.namespace, owner))
    method, target = data.draw(
        st.sampled_from([("POST", PATHS[0]), ("PUT", f"{PATHS[0]}/own"), ("PUT", f"{PATHS[0]}/victim")])
    )
    answer = wire.exchange("manifests", method, target, json_headers(battle), sendable(manifest))
    if manifest["metadata"].get("namespace") == battle.victim.namespace:
        assert answer.code in (400, 403)


def sendable(value: Any) -> bytes:
    """As JSON, in which half a character is written in letters of ASCII."""
    return json.dumps(value, ensure_ascii=True).encode()


BODIES = sorted(crafted("victim"))


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_are_crafted(battle: Battle, wire: Wire, kind: str) -> None:
    media_type, body = crafted(battle.victim.namespace)[kind]
    headers: list[Header] = [battle.bearer, *([("Content-Type", media_type)] if media_type else [])]
    for method, target in (("POST", "/virtualmachines"), ("PUT", "/virtualmachines/own"), ("POST", "/secrets")):
        wire.exchange("crafted bodies", method, target, headers, body)
    for method, target in (("PUT", "/virtualmachines/own/stop"), ("DELETE", "/virtualmachines/nothing")):
        wire.exchange("crafted bodies", method, target, headers, body)


@effort(200)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()), st.data())
def test_bodies_of_any_bytes(battle: Battle, wire: Wire, body: bytes, data: st.DataObject) -> None:
    media_type = data.draw(st.sampled_from([JSON, "application/yaml", "application/x-yaml"]))
    charset = data.draw(st.none() | st.sampled_from(charsets))
    content_type = media_type if charset is None else f"{media_type}; charset={charset}"
    headers = [battle.bearer, ("Content-Type", content_type)]
    answer = wire.exchange("any bytes", "POST", "/virtualmachines", headers, body)
    assert answer.code in (400, 415)


@effort(100)
@given(values, st.sampled_from(PATHS))
def test_bodies_of_any_value(battle: Battle, wire: Wire, value: object, path: str) -> None:
    answer = wire.exchange("any value", "POST", path, json_headers(battle), sendable(value))
    assert answer.code == 400


@pytest.mark.parametrize("coding", sorted(compressed()))
def test_bodies_that_are_compressed(battle: Battle, wire: Wire, coding: str) -> None:
    for plain in (json.dumps(machine("packed")).encode(), b" " * 50 * 2**20):
        packed = compressed()[coding](plain)[: 2**20]
        headers = [*json_headers(battle), ("Content-Encoding", coding)]
        assert wire.exchange("compressed", "POST", "/virtualmachines", headers, packed).code == 415


# --- how it is sent ---


def chunked(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece) + b"0\r\n\r\n"


@effort(100)
@given(st.data())
def test_chunks_of_any_size(battle: Battle, wire: Wire, data: st.DataObject) -> None:
    body = json.dumps(
        machine("chunked", namespace=data.draw(st.sampled_from(["", battle.victim.namespace])))
    ).encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=20)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    extension = data.draw(st.sampled_from([b"", b";a=b", b";" + b"a" * 3000, b" "]))
    headers = [*json_headers(battle), ("Transfer-Encoding", "chunked")]
    raw = framed("POST", "/virtualmachines", headers) + chunked(pieces, extension)
    # Who sends nonsense after the headers may find the connection closed and no answer.
    assert {answer.code for answer in wire.volley("chunks", raw)} <= {200, 400, 403}


BROKEN_CHUNKS = [
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"-1\r\n{}\r\n0\r\n\r\n",
    b"0x2\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}",
    b"2\r\n{}}}\r\n0\r\n\r\n",
    b"2\n{}\n0\n\n",
    b"ffffffffffffffff0\r\n{}\r\n",
    b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"0\r\nContent-Length: 5\r\nAuthorization: Bearer x\r\n\r\n",
    b"0\r\nImpersonate-User: system:admin\r\n\r\n",
    b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    b"0\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
]


@pytest.mark.parametrize("chunks", BROKEN_CHUNKS, ids=range(len(BROKEN_CHUNKS)))
def test_chunks_that_are_none(battle: Battle, wire: Wire, chunks: bytes) -> None:
    headers = [*json_headers(battle), ("Transfer-Encoding", "chunked")]
    answers = wire.volley("chunks", framed("POST", "/virtualmachines", headers) + chunks)
    assert all(answer.code in (200, 400, 403, 413, 431) for answer in answers)


@effort(60)
@given(st.integers(0, 1500), st.booleans())
def test_requests_that_end_early(battle: Battle, wire: Wire, length: int, within_the_body: bool) -> None:
    """Nobody waits for an answer: that nothing was made of it, and that nobody hangs, is seen behind it."""
    body = json.dumps(machine("early", namespace=battle.victim.namespace)).encode()
    whole = framed("POST", "/virtualmachines", json_headers(battle), body)
    wire.abandon(whole[: len(whole) - 1 - length % len(body)] if within_the_body else whole[:length])
    battle.figures.kinds["ended early"] += 1


@pytest.mark.parametrize("count", [10, 99, 1000, 20_000])
def test_headers_without_end(battle: Battle, wire: Wire, count: int) -> None:
    headers: list[Header] = [battle.bearer, *((f"X-{number}", "a") for number in range(count))]
    for raw in (
        framed("GET", "/virtualmachines", headers),
        framed("GET", "/virtualmachines", [battle.bearer, ("X-Long", "a" * count * 10)]),
        framed("GET", "/virtualmachines", [battle.bearer, ("X" * count, "a")]),
        framed("GET", "/virtualmachines?a=" + "a" * count * 10, [battle.bearer]),
        framed("GET", "/" + "a/" * count * 5, [battle.bearer]),
    ):
        for answer in wire.volley("sizes", raw):
            assert answer.code in (200, 400, 404, 413, 414, 431)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n" * 1000,
        b"\0" * 1000,
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"GET /virtualmachines HTTP/1.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"a" * 100_000,
    ],
    ids=range(12),
)
def test_what_is_no_http(wire: Wire, raw: bytes) -> None:
    for answer in wire.volley("no HTTP", raw):
        assert answer.code in (200, 400, 401, 404, 405, 431, 505)
