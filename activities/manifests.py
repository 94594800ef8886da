"""Manifests of scenarios, with the labels of who makes them."""

from collections.abc import Mapping

from virtflow.kube import Object

__all__ = ["label"]


def label(manifest: Object, labels: Mapping[str, str]) -> None:
    """Put the labels on the object, and on what is made of its template: KubeVirt hands them on to instance and pod.

    Raises TypeError or AttributeError where a part of it has another form than the API's.
    """
    _label(manifest, labels)
    # A null is for the API what nothing is.
    template = (manifest.get("spec") or {}).get("template")
    if template is not None:
        _label(template, labels)


def _label(obj: Object, labels: Mapping[str, str]) -> None:
    metadata = obj["metadata"] = obj.get("metadata") or {}
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
