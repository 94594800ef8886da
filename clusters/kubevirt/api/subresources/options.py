"""The bodies of subresource requests: what may be asked beside the action itself.

As Go decodes them: an unknown field is ignored, and a null is the same as nothing.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from clusters.kubevirt.api.decoding import without_nulls
from clusters.kubevirt.api.subresources.statuses import bad_request
from virtflow.safe_yaml import read_yaml

__all__ = ["Options", "PauseOptions", "RestartOptions", "StartOptions", "StopOptions", "read_options"]

GO_TYPES = {
    **dict.fromkeys(("int_type", "greater_than_equal", "less_than_equal"), "int64"),
    "bool_type": "bool",
    "string_type": "string",
    "list_type": "[]string",
}
"""What a value should have been, by the error that pydantic finds."""
JSON_TYPES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}

Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class Options(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, alias_generator=to_camel, validate_by_name=True)

    dry_run: list[str] = []
    """Empty, or ["All"]: everything is checked, nothing is written."""


class StartOptions(Options):
    paused: bool = False


class StopOptions(Options):
    grace_period: Int64 | None = None
    """Seconds."""


class RestartOptions(Options):
    grace_period_seconds: Int64 | None = None
    """Seconds; only 0 is served, which takes the launcher pod away at once."""


class PauseOptions(Options):
    """For unpause, too."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(body: bytes, model: type[AnyOptions]) -> AnyOptions:
    """The options in a body of JSON or YAML; an empty one has none. Raises `Refused` (400)."""
    try:
        text = body.decode()
        found = json.loads(text) if text.lstrip().startswith("{") else read_yaml(text)
        json.dumps(found, allow_nan=False)  # the numbers JSON has no word for: infinities, endless digits
        return model.model_validate({} if found is None else without_nulls(found), by_alias=True, by_name=False)
    except ValidationError as error:
        raise unreadable(complaint(error.errors()[0], model.__name__)) from error
    except RecursionError as error:
        raise unreadable("it is nested too deeply") from error
    except ValueError as error:
        raise unreadable(str(error)) from error


def complaint(error: Any, holder: str) -> str:
    """A value of the wrong type, as Go's decoder says it."""
    found = JSON_TYPES.get(type(error["input"]), "null")
    if not error["loc"]:
        return f"json: cannot unmarshal {found} into Go value of type v1.{holder}"
    wanted = GO_TYPES.get(error["type"], error["type"])
    if (found, wanted) == ("number", "int64"):
        found = f"number {error['input']}"
    return f"json: cannot unmarshal {found} into Go struct field {holder}.{error['loc'][0]} of type {wanted}"


def unreadable(why: str) -> Exception:
    return bad_request(f"Can not unmarshal Request body to struct, error: {why}")
