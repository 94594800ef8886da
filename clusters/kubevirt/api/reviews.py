"""AdmissionReviews over HTTP: how one is read, and how it is answered. What the verdict is, is each webhook's own."""

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from virtflow.kube import Object

__all__ = ["MAX_REVIEW", "Asked", "review_route"]

MAX_REVIEW = 16 * 1024 * 1024
"""Bytes. The kube-apiserver takes requests up to 3 MiB, and sends the new object, the old one and what they are."""


class Asked(BaseModel):
    """The `request` of an AdmissionReview: each webhook has fields of its own beside the uid."""

    model_config = ConfigDict(strict=True, frozen=True, alias_generator=to_camel)

    uid: str


AnyAsked = TypeVar("AnyAsked", bound=Asked)


def review_route(path: str, model: type[AnyAsked], answer: Callable[[AnyAsked], Awaitable[Object]]) -> Route:
    """The endpoint of a webhook; `answer` gives the review's `response`, without its uid."""

    async def endpoint(request: Request) -> Response:
        try:
            asked = model.model_validate(json.loads(await request.body())["request"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return PlainTextResponse(f"This is no AdmissionReview that virt-api can read: {error!r}", 400)
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": asked.uid, **await answer(asked)},
        }
        # Not Starlette's JSONResponse, which fails at half a surrogate pair: JSON may have one, UTF-8 may not.
        return Response(json.dumps(review), media_type="application/json")

    return Route(path, endpoint, methods=["POST"], max_body_size=MAX_REVIEW)
