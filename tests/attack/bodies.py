"""Bodies that mean one thing to one reader and another to the next, or more than any reader can bear."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.attack.parties import machine
from virtflow.kube import Object

__all__ = ["JSON", "YAML", "charsets", "crafted", "manifests", "namespaces", "texts"]

JSON, YAML = "application/json", "application/yaml"
DEEP = 10_000
ENDLESS = "9" * 5000


def crafted(victim: str) -> dict[str, tuple[str, bytes]]:
    """By what is wrong with them: media type and bytes. Where one names a namespace, it is the victim's, too."""
    own = json.dumps(machine("crafted"))
    open_own = own.removesuffix("}")
    bodies: dict[str, tuple[str, str | bytes]] = {
        "empty": (JSON, b""),
        "empty YAML": (YAML, b""),
        "only spaces": (JSON, b" " * 1000),
        "null": (JSON, "null"),
        "a list": (JSON, f"[{own}]"),
        "a string": (JSON, '"VirtualMachine"'),
        "a number": (JSON, "1"),
        "two objects": (JSON, own + own),
        "a rest": (JSON, own + "x"),
        "half an object": (JSON, own[:100]),
        "a comment": (JSON, "/* */" + own),
        "single quotes": (JSON, own.replace('"', "'")),
        "a byte order mark": (JSON, b"\xef\xbb\xbf" + own.encode()),
        "a byte order mark in YAML": (YAML, b"\xef\xbb\xbf" + own.encode()),
        "UTF-16": (JSON, own.encode("utf-16")),
        "UTF-32": (JSON, own.encode("utf-32")),
        "UTF-16 in YAML": (YAML, own.encode("utf-16")),
        "Latin-1": (JSON, open_own.encode() + b', "x": "\xe9"}'),
        "overlong UTF-8": (JSON, open_own.encode() + b', "x": "\xc0\xae\xc0\xae/"}'),
        "a surrogate in UTF-8": (JSON, open_own.encode() + b', "x": "\xed\xa0\x80"}'),
        "half a character": (JSON, open_own + r', "x": "\ud800"}'),
        "half a character for a key": (JSON, open_own + r', "\udfff": 1}'),
        "half a character in the name": (JSON, own.replace("crafted", r"\ud800")),
        "NUL": (JSON, open_own + r', "x": "\u0000"}'),
        "NUL in the name": (JSON, own.replace("crafted", r"a\u0000b")),
        "a raw NUL": (JSON, own.replace("crafted", "a\0b")),
        "a NUL in YAML": (YAML, "a: \0"),
        "control characters": (YAML, "a: \x01\x1b\x7f"),
        "a namespace twice": (JSON, twice(victim)),
        "a namespace twice, once in escapes": (JSON, twice(victim).replace('"namespace"', r'"n\u0061mespace"', 1)),
        "metadata twice": (JSON, open_own + f', "metadata": {{"name": "crafted", "namespace": "{victim}"}}}}'),
        "metadata twice in YAML": (YAML, f"metadata: {{name: a}}\nmetadata: {{name: a, namespace: {victim}}}"),
        "a merge key": (YAML, f"a: &a {{namespace: {victim}}}\nmetadata: {{<<: *a, name: crafted}}"),
        "a merge key without an alias": (YAML, f"metadata: {{<<: {{namespace: {victim}}}, name: crafted}}"),
        "an alias": (YAML, "a: &a [x]\nb: *a"),
        "an alias to itself": (YAML, "a: &a [*a]"),
        "an anchor nobody uses": (YAML, "a: &a 1"),
        "a billion laughs": (YAML, laughs(9)),
        "a billion laughs in mappings": (YAML, laughs(9).replace("[", "{a: ").replace(",", ", b: ")),
        "a tag": (YAML, "!!python/object/apply:os.system ['true']"),
        "a tag of a key": (YAML, "? !!binary aGk=\n: 1"),
        "a timestamp": (YAML, "a: 2026-01-01T00:00:00Z\n2026-01-01: b"),
        "a key that is a list": (YAML, "? [a, b]\n: c"),
        "two documents": (YAML, f"{own}\n---\n{own}"),
        "a directive": (YAML, f"%YAML 9.9\n---\n{own}"),
        "a directive of tags": (YAML, "%TAG ! tag:yaml.org,2002:python/\n---\n!object:os.system a"),
        "sexagesimals": (YAML, "a: " + ":".join(["59"] * 5000)),
        "deep JSON": (JSON, '{"a":' * DEEP + "1" + "}" * DEEP),
        "deep JSON lists": (JSON, "[" * DEEP + "]" * DEEP),
        "deep JSON that never ends": (JSON, "[" * 100_000),
        "deep YAML": (YAML, "{a: " * DEEP + "1" + "}" * DEEP),
        "deep YAML lists": (YAML, "[" * DEEP),
        "deep YAML dashes": (YAML, "- " * DEEP + "a"),
        "deep YAML by indents": (YAML, "\n".join(" " * depth + "a:" for depth in range(1000))),
        "a deep label": (JSON, own.replace('"name"', '"labels": ' + '{"a":' * 99 + "1" + "}" * 99 + ', "name"')),
        "many keys": (JSON, "{" + ",".join(f'"{number}": 1' for number in range(50_000)) + "}"),
        "many labels": (JSON, json.dumps(machine("crafted", labels={f"a{n}": "b" for n in range(20_000)}))),
        "a long name": (JSON, json.dumps(machine("a" * 500_000))),
        "a long key": (JSON, json.dumps({"a" * 900_000: 1})),
        "one byte over a mebibyte": (JSON, own + " " * (2**20 + 1 - len(own))),
        "exactly a mebibyte": (JSON, own + " " * (2**20 - len(own))),
        "two mebibytes": (JSON, b" " * 2**21),
        "no content type": ("", own),
        "two kinds in one content type": (f"{JSON}, {YAML}", own),
        "text": ("text/plain", own),
        "a form": ("application/x-www-form-urlencoded", "metadata=a"),
        "multipart": ("multipart/form-data; boundary=a", "--a\r\n\r\n\r\n--a--"),
        "a merge patch": ("application/merge-patch+json", '{"metadata": {}}'),
        "an apply patch": ("application/apply-patch+yaml", own),
        "protobuf": ("application/vnd.kubernetes.protobuf", b"k8s\0\n\x0e\n\x02v1"),
        "CBOR": ("application/cbor", b"\xd9\xd9\xf7\xa1aa\x01"),
        "XML": ("application/xml", '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        "JSON called YAML": (YAML, own),
        "YAML called JSON": (JSON, "kind: VirtualMachine"),
        "another case": ("APPLICATION/JSON", own),
        "a content type without an end": (f"{JSON}; charset=", own),
        "random bytes": (JSON, bytes(range(256)) * 4),
    }
    bodies |= {
        f"the number {number[:12]} in {name}": (media_type, text.replace("NUMBER", number))
        for number in ("1e400", "-1e400", ENDLESS, "-0", "1e-400", "NaN", "Infinity", "0x10", "1_000", "01", ".inf")
        for name, media_type, text in (
            ("JSON", JSON, open_own + ', "x": NUMBER}'),
            ("YAML", YAML, "x: NUMBER"),
            ("a generation", JSON, own.replace('"name"', '"generation": NUMBER, "name"')),
        )
    }
    return {kind: (media_type, _bytes(body)) for kind, (media_type, body) in bodies.items()}


def twice(victim: str) -> str:
    """To who keeps the first of two it is in another namespace than to who keeps the last."""
    text = json.dumps(machine("crafted"))
    return text.replace('"name"', f'"namespace": "attacker", "namespace": "{victim}", "name"')


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [ha]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


def _bytes(body: str | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.encode()


texts = st.text(st.characters(), max_size=40)
"""Of any letters, halves of characters among them."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["", "..", "../..", "a\0b", "%2e%2e", "\u2025", "${x}", "a" * 300, 2**63, -(2**63) - 1, 2**64])
)
values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)


def namespaces(own: str, victim: str) -> st.SearchStrategy[Any]:
    """What somebody may write where a namespace is meant."""
    return st.sampled_from(
        [
            own,
            victim,
            "kube-system",
            "virtflow-system",
            "default",
            "",
            "*",
            "..",
            ".",
            "-",
            f"{own}/../{victim}",
            f"../{victim}",
            f"..%2f{victim}",
            f"%2e%2e%2f{victim}",
            f"{victim}/virtualmachines/victim",
            f"{victim}\0",
            f"{victim}\n",
            f" {victim}",
            f"{victim} ",
            f"{victim}?",
            f"{victim}#",
            f"{victim};{own}",
            f"{own},{victim}",
            victim.upper(),
            victim.replace("i", "\u0456"),
            victim.replace("v", "\uff56"),
            victim.replace("-", "\u2010"),
            victim.replace("t", "t\u0301"),
            "\ufb01le",
            "a" * 64,
            "a" * 5000,
        ]
    )


odd_namespaces = st.sampled_from([None, 0, True, [], {}, ["victim"], {"namespace": "victim"}, 1.5])


@st.composite
def manifests(draw: st.DrawFn, own: str, victim: str, owner: Object) -> Object:
    """A virtual machine with something in it that is not meant to be there."""
    manifest = machine(draw(st.sampled_from(["own", "victim", "a", "b", "c"])))
    metadata = manifest["metadata"]
    twists: dict[str, Callable[[], object]] = {
        "namespace": lambda: draw(namespaces(own, victim) | odd_namespaces),
        "generateName": lambda: draw(st.sampled_from(["a-", "victim", "../", "", "A", "a" * 300]) | texts),
        "name": lambda: draw(st.sampled_from(["", None, "..", "../victim", "a/b", "a" * 254, 1, []]) | texts),
        "uid": lambda: owner["uid"],
        "resourceVersion": lambda: draw(st.sampled_from(["0", "1", "-1", "x", "", owner["resourceVersion"]])),
        "generation": lambda: draw(st.sampled_from([-1, 2**63 - 1, 2**63, 2**64, "1", 1.5])),
        "creationTimestamp": lambda: draw(st.sampled_from(["1970-01-01T00:00:00Z", "x", 0, "9999-99-99"])),
        "deletionTimestamp": lambda: "1970-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": lambda: draw(st.sampled_from([-1, 0, 2**63])),
        "selfLink": lambda: f"/apis/kubevirt.io/v1/namespaces/{victim}/virtualmachines/victim",
        "finalizers": lambda: draw(st.sampled_from([["a/b"], ["orphan"], ["foregroundDeletion"], [""], [1], ["x"]])),
        "labels": lambda: draw(st.dictionaries(texts, values, max_size=3)),
        "annotations": lambda: draw(st.dictionaries(texts, values, max_size=3)),
        "managedFields": lambda: draw(values),
        "ownerReferences": lambda: [{**owner_reference(owner), **draw(st.dictionaries(texts, values, max_size=2))}],
    }
    for field in draw(st.lists(st.sampled_from(sorted(twists)), max_size=4, unique=True)):
        metadata[field] = twists[field]()
    for path in draw(st.lists(st.sampled_from(PLACES), max_size=2)):
        put(manifest, path, draw(values))
    return manifest


PLACES = [
    ("apiVersion",),
    ("kind",),
    ("Metadata",),
    ("metadata", "Namespace"),
    ("spec",),
    ("spec", "runStrategy"),
    ("spec", "template"),
    ("spec", "template", "metadata"),
    ("spec", "template", "spec", "volumes"),
    ("spec", "template", "spec", "domain"),
    ("spec", "template", "spec", "domain", "resources", "requests"),
    ("spec", "dataVolumeTemplates"),
    ("status",),
    ("x",),
]


def put(manifest: Object, path: tuple[str, ...], value: object) -> None:
    *parents, last = path
    inner: Any = manifest
    for key in parents:
        if not isinstance(inner, dict):
            return
        inner = inner.setdefault(key, {})
    if isinstance(inner, dict):
        inner[last] = value


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": owner["name"],
        "uid": owner["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def compressed() -> dict[str, Callable[[bytes], bytes]]:
    return {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "br": bytes, "x": bytes}


charsets = ["utf-8", "UTF-8", "utf-16", "latin1", "utf-7", "ebcdic-cp-be", "idna", "", "x" * 100]
