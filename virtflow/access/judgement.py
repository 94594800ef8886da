"""What an answer says of authorization, and nothing else of it.

Being denied is told by the very words of a refusal, with this user, verb and resource in them: a quota's and a
webhook's 403 come after authorization, and a 401 says that nobody was asked. The gateway's own answers bear the
request's id as a cause; all others are the kube-apiserver's, passed on.
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
NO_WORD_OF_IT = frozenset({401, 408, 429})


def judge(cell: Cell, door: Door, code: int, status: Object) -> Outcome:
    """`status` is the body of a refusal, empty for what was not refused; `code` 0 if there was no answer."""
    if code == 0 or code >= 500 or code in NO_WORD_OF_IT:
        return Outcome.UNCLEAR
    if code == 403 and is_denial(cell, str(status.get("message", ""))):
        return Outcome.DENIED
    if door is Door.GATEWAY and code >= 400 and is_gateways(status):
        # By a path or a method it does not have; a request that it has and calls malformed was never decided on.
        return Outcome.NOT_OFFERED if code in (404, 405) or not is_offered(cell) else Outcome.UNCLEAR
    return Outcome.ALLOWED


def is_denial(cell: Cell, message: str) -> bool:
    """Whether the words are a refusal of this very request."""
    found = DENIAL.search(message)
    said = (cell.user, cell.verb, str(cell.target), cell.target.resource.group, cell.place or None)
    return found is not None and found.group("user", "verb", "resource", "group", "place") == said


def is_gateways(status: Object) -> bool:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(cause.get("reason") == "RequestId" for cause in causes or ())
