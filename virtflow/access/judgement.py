"""What an answer says of authorization, and nothing else of it.

Being denied is told by the very words of a refusal, with this user, verb and resource in them: a quota's and a
webhook's 403 come after authorization, and a 401 says that nobody was asked. Being allowed is told by success, or by
a refusal that is known to come afterwards. All else is unclear. The gateway's own answers bear the request's id as a
cause; all others are the kube-apiserver's, passed on.
"""

import re

from virtflow.access.matrix import Cell, is_offered
from virtflow.kube.resources import Object
from workflows.access_models import Door, Outcome

__all__ = ["judge"]

DENIAL = re.compile(
    r'is forbidden: User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" '
    r'in API group "(?P<group>[^"]*)" (?:in the namespace "(?P<place>[^"]*)"|at the cluster scope)'
)
AFTERWARDS = frozenset({"NotFound", "AlreadyExists", "Conflict", "Invalid", "MethodNotAllowed"})
"""Reasons of a Status that nobody hears of who was not authorized."""
ADMISSION = re.compile(
    r'(exceeded|failed) quota: |status unknown for quota: |admission webhook "[^"]*" denied the request'
    r"|(minimum|maximum) \S+ usage per |maximum \S+ limit to request ratio per "
)
"""In what words a quota, a webhook or a LimitRange forbids: after authorization as well."""


def judge(cell: Cell, door: Door, code: int, status: Object) -> Outcome:
    """`status` is the body of a refusal, empty for what was not refused; `code` 0 if there was no answer."""
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if code == 403 and is_denial(cell, message):
        return Outcome.DENIED
    if door is Door.GATEWAY and is_gateways(status):
        # By a path, a method or a query it does not have; one that it has and calls malformed was never decided on.
        is_without = code in (404, 405) or (code == 400 and not is_offered(cell))
        return Outcome.NOT_OFFERED if is_without else Outcome.UNCLEAR
    if 200 <= code < 300 or reason in AFTERWARDS or (reason == "Forbidden" and ADMISSION.search(message)):
        return Outcome.ALLOWED
    return Outcome.UNCLEAR


def is_denial(cell: Cell, message: str) -> bool:
    """Whether the words are a refusal of this very request."""
    found = DENIAL.search(message)
    said = (cell.user, cell.verb, str(cell.target), cell.target.resource.group, cell.place or None)
    return found is not None and found.group("user", "verb", "resource", "group", "place") == said


def is_gateways(status: Object) -> bool:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(cause.get("reason") == "RequestId" for cause in causes or ())
