"""The schemas of the OpenAPI document: what is sent, and what comes back.

What is sent is stated as far as it helps to write it, and never more narrowly than the kube-apiserver takes it. What
comes back is the kube-apiserver's to say: only the frame that every object has is promised.
"""

from clusters.kubevirt.crds import schema as kubevirt_schema
from virtflow.kube import Object, Resource
from virtflow.kube.resources import HPAS, PODS, SECRETS, VM_ACTIONS, VMIRS, VMIS, VMS

__all__ = ["ACTION_OPTIONS", "LIST", "OBJECT_META", "READY", "STATUS", "SUCCESS", "answered_schema", "sent_schema"]

STRING = {"type": "string"}
STRING_MAP = {"type": "object", "additionalProperties": STRING, "nullable": True}


def sent_schema(resource: Resource) -> Object:
    """A manifest of this kind, without the status, which is not the caller's to write."""
    fields = OF_KUBERNETES.get(resource)
    if fields is None:
        whole = kubevirt_schema(resource.kind)
        fields = {"required": whole["required"], "properties": {"spec": whole["properties"]["spec"]}}
    required = ["apiVersion", "kind", "metadata", *fields.get("required", [])]
    described = _of_kind(resource, required, fields["properties"])
    if resource in EXAMPLES:
        frame = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "test"}}
        described["example"] = {**frame, "spec": EXAMPLES[resource]}
    return described


def answered_schema(resource: Resource) -> Object:
    return _of_kind(resource, ["apiVersion", "kind", "metadata"], {})


def _of_kind(resource: Resource, required: list[str], fields: Object) -> Object:
    frame = {
        "apiVersion": {**STRING, "enum": [resource.api_version]},
        "kind": {**STRING, "enum": [resource.kind]},
        "metadata": {"$ref": "#/components/schemas/ObjectMeta"},
    }
    return {"type": "object", "required": required, "properties": {**frame, **fields}}


OBJECT_META: Object = {
    "type": "object",
    "properties": {
        "name": {**STRING, "nullable": True},
        "generateName": {**STRING, "nullable": True},
        "namespace": {**STRING, "nullable": True, "description": "The caller's own, if it is not stated."},
        "labels": STRING_MAP,
        "annotations": STRING_MAP,
        "resourceVersion": {
            **STRING,
            "nullable": True,
            "description": "In an update: what was read. It is refused if somebody else wrote since.",
        },
    },
}

INSTANCE: Object = {
    "domain": {
        "cpu": {"cores": 1},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        "devices": {"disks": [{"name": "bootdisk", "disk": {"bus": "virtio"}}]},
    },
    "volumes": [{"name": "bootdisk", "containerDisk": {"image": "quay.io/containerdisks/ubuntu:22.04"}}],
}
TEMPLATE = {"metadata": {"labels": {"app": "test"}}, "spec": INSTANCE}
EXAMPLES: dict[Resource, Object] = {
    VMS: {"runStrategy": "Always", "template": TEMPLATE},
    VMIS: INSTANCE,
    VMIRS: {"replicas": 1, "selector": {"matchLabels": {"app": "test"}}, "template": TEMPLATE},
}
"""The specs of KubeVirt's kinds, of whose hundreds of fields few are needed."""

OF_KUBERNETES: dict[Resource, Object] = {
    HPAS: {
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["maxReplicas", "scaleTargetRef"],
                "properties": {
                    "minReplicas": {"type": "integer", "format": "int32", "nullable": True},
                    "maxReplicas": {"type": "integer", "format": "int32"},
                    "scaleTargetRef": {
                        "type": "object",
                        "required": ["kind", "name"],
                        "properties": {"apiVersion": STRING, "kind": STRING, "name": STRING},
                    },
                    "metrics": {"type": "array", "items": {"type": "object"}, "nullable": True},
                    "behavior": {"type": "object", "nullable": True},
                },
            }
        },
    },
    SECRETS: {
        "properties": {
            "type": {**STRING, "nullable": True},
            "data": {
                "type": "object",
                "additionalProperties": {**STRING, "format": "byte", "nullable": True},
                "nullable": True,
            },
            "stringData": STRING_MAP,
            "immutable": {"type": "boolean", "nullable": True},
        }
    },
    PODS: {
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["containers"],
                "properties": {
                    "containers": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": STRING, "image": {**STRING, "nullable": True}},
                        },
                    }
                },
            }
        },
    },
}

DRY_RUN = {"type": "array", "items": {**STRING, "enum": ["All"]}, "maxItems": 1, "nullable": True}
SECONDS = {"type": "integer", "format": "int64", "nullable": True}
ACTION_OPTIONS: dict[str, Object] = {
    action: {
        "title": f"{VM_ACTIONS.kind}'s {action}",
        "type": "object",
        "properties": {"dryRun": DRY_RUN, **options},
    }
    for action, options in {
        "start": {"paused": {"type": "boolean", "nullable": True}},
        "stop": {"gracePeriod": {**SECONDS, "description": "Seconds."}},
        "restart": {"gracePeriodSeconds": {**SECONDS, "description": "Only 0 is served: at once."}},
    }.items()
}

LIST: Object = {
    "type": "object",
    "required": ["apiVersion", "kind", "items"],
    "properties": {
        "apiVersion": STRING,
        "kind": STRING,
        "metadata": {"type": "object"},
        "items": {"type": "array", "items": {"type": "object"}},
    },
}
STATUS: Object = {
    "type": "object",
    "description": "Kubernetes' own way to say no. `details.causes` has the request id, where the gateway says it.",
    "required": ["kind", "message", "code"],
    "properties": {
        "apiVersion": {**STRING, "enum": ["v1"]},
        "kind": {**STRING, "enum": ["Status"]},
        "status": {**STRING, "enum": ["Failure"]},
        "message": STRING,
        "reason": {**STRING, "description": "For programs."},
        "details": {"type": "object"},
        "code": {"type": "integer", "minimum": 400, "maximum": 599},
    },
}
SUCCESS: Object = {
    "type": "object",
    "required": ["kind", "status"],
    "properties": {"kind": {**STRING, "enum": ["Status"]}, "status": {**STRING, "enum": ["Success"]}},
}
READY: Object = {"type": "object", "required": ["status"], "properties": {"status": {**STRING, "enum": ["ok"]}}}
