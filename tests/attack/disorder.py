"""What no answer of the gateway may be, whatever was asked."""

import json
import re

from tests.attack.breaches import Account
from tests.attack.wire import Answer
from virtflow.kube import Object

__all__ = ["disorder"]

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,47}")
SAYING_LITTLE: tuple[Object, ...] = ({"status": "ok"}, {})
"""What /healthz and /readyz say, and KubeVirt to a start that is under way."""


def disorder(answer: Answer, sender: Account) -> str | None:
    """What is wrong with an answer to this account's request; None if nothing is."""
    if answer.code >= 500:
        return f"a {answer.code}: the gateway failed, or passed a failure on"
    if not REQUEST_ID.fullmatch(answer.request_id):
        return f"no X-Request-Id: {answer.request_id!r}"
    return _disorder_of_body(answer, sender) if answer.body else None


def _disorder_of_body(answer: Answer, sender: Account) -> str | None:
    try:
        body = json.loads(answer.body)
    except ValueError as error:
        return f"no JSON: {error}"
    if answer.headers.get_content_type() != "application/json":
        return f"JSON that is called {answer.headers.get('content-type')!r}"
    if body in SAYING_LITTLE:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
        return "neither a Status nor an object of Kubernetes"
    if answer.code >= 400 and (body["kind"], body.get("code")) != ("Status", answer.code):
        return "a refusal that is no Status, or one of another code"
    objects = body.get("items") or [body]
    namespaces = {item.get("metadata", {}).get("namespace", sender.namespace) for item in objects}
    return f"it has objects of {namespaces}" if namespaces != {sender.namespace} else None
