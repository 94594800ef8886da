"""How the gateway says no: an exception that becomes a Kubernetes Status, as the kube-apiserver's would.

A client then has one kind of error to read, whoever refused. The request id is in the `X-Request-Id` header
of every answer; in the gateway's own Status it is also a cause of reason `RequestId`. `details.uid` would have
been the other place, but that is the uid of the object the Status speaks of, and clients compare it.
"""

from collections.abc import Mapping

from virtflow.kube import Object

__all__ = ["LONGEST", "REASONS", "StatusError"]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
    431: "RequestHeaderFieldsTooLarge",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""HTTP codes the gateway answers with by itself, and their `reason` in Kubernetes."""

LONGEST = 1000
"""Letters of a message: it quotes what the caller sent, which may be a mebibyte."""


class StatusError(Exception):
    """The request ends here. `message` is for the caller, `why` (else the message) for the operator's log."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        why: str = "",
        details: Object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= LONGEST else message[:LONGEST] + " ..."
        self.why = why or self.message
        self.details = details or {}
        self.headers = headers or {}

    def status(self, request_id: str) -> Object:
        """The Status object to answer with."""
        cause = {"reason": "RequestId", "message": request_id}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": REASONS[self.code],
            "details": {**self.details, "causes": [cause]},
            "code": self.code,
        }
