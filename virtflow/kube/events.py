"""Events, which their recorders do not all fill in alike."""

from virtflow.kube.resources import Object

__all__ = ["last_seen"]


def last_seen(event: Object) -> str:
    """When it was seen last, as the API has it: RFC 3339 in UTC, to the second or finer, so that text sorts as time
    does. Empty if it says nothing at all."""
    series = event.get("series") or {}
    moments = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next(filter(None, moments), "") or event["metadata"].get("creationTimestamp", "")
