"""How virt-api says no: causes with a field and a reason each, and the Status built of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from virtflow.kube import Object

__all__ = ["DUPLICATE", "FORBIDDEN", "INVALID", "NOT_FOUND", "NOT_SUPPORTED", "REQUIRED", "Cause", "Refused"]

DUPLICATE = "FieldValueDuplicate"
FORBIDDEN = "FieldValueForbidden"
INVALID = "FieldValueInvalid"
NOT_FOUND = "FieldValueNotFound"
NOT_SUPPORTED = "FieldValueNotSupported"
REQUIRED = "FieldValueRequired"

MOST_CAUSES = 10
"""What is told of; the rest is counted."""


@dataclass(frozen=True)
class Cause:
    """One thing wrong with an object: where (a field path), and what. A schema's complaint names neither apart."""

    message: str
    field: str = ""
    reason: str = INVALID

    def as_json(self) -> Object:
        found = {"reason": self.reason, "message": self.message, "field": self.field}
        return {key: value for key, value in found.items() if value}


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """The object is not admitted; `status` is the Status the kube-apiserver passes on to the client."""

    def __init__(self, status: Object) -> None:
        self.status = status
        super().__init__(status["message"])

    @classmethod
    def for_causes(cls, causes: Sequence[Cause]) -> "Refused":
        """What is wrong with the object's fields: 422, with the first ten causes."""
        told, rest = causes[:MOST_CAUSES], len(causes) - MOST_CAUSES
        message = ", ".join(cause.message for cause in told)
        return cls(
            {
                "code": 422,
                "reason": "Invalid",
                "message": f"{message}, and {rest} more validation errors" if rest > 0 else message,
                "details": {"causes": [cause.as_json() for cause in told]},
            }
        )

    @classmethod
    def unreadable(cls, message: str) -> "Refused":
        """The object cannot be decoded at all: 400, without a reason, as KubeVirt answers."""
        return cls({"code": 400, "message": message})
