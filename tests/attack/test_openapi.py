"""What the gateway says of itself at /openapi.json, held against what it does: schemathesis writes the requests.

For every operation it has what the document allows and what it forbids, place by place ("coverage"), and beside
that what hypothesis makes of the schemas. Of each answer it asks that the document knows it: code, content type,
headers and body; that a token is needed; that other methods are refused.

Its pytest plugin is switched off (pyproject.toml): it would make all requests when tests are collected.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from clusters.endpoints import Endpoints
from clusters.gateway.offered import ENDPOINTS
from clusters.gateway.openapi import openapi
from tests.attack.conftest import Battle
from tests.attack.effort import USUAL, effort
from tests.attack.wire import BOUND
from virtflow.kube import Object

LEVELS = 3
"""Of a manifest's schema. What is deeper is the kube-apiserver's own to check: by ten thousand cases more."""
OFFERED = [f"{method} {endpoint.path}" for endpoint in ENDPOINTS for method in endpoint.verbs]
PUBLIC = [f"GET {path}" for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")]
# Whether there is a machine of a name, and what one may be beyond its fields' types, only the kube-apiserver knows;
# and of fields that nobody knows it says a warning.
LEFT_OUT: list[CheckFunction] = [positive_data_acceptance, negative_data_rejection]


def shallow(schema: Any, levels: int) -> Any:
    if not isinstance(schema, dict) or schema.keys().isdisjoint(("properties", "items", "additionalProperties")):
        return schema
    if levels == 0:
        return {key: value for key, value in schema.items() if key in ("type", "nullable")}
    inner = {key: shallow(schema[key], levels - 1) for key in ("items", "additionalProperties") if key in schema}
    if "properties" in schema:
        inner["properties"] = {name: shallow(value, levels - 1) for name, value in schema["properties"].items()}
    return {**schema, **inner}


@pytest.fixture(scope="module")
def document(endpoints: Endpoints, session: requests.Session) -> Object:
    served: Object = session.get(f"{endpoints.gateway_url}/openapi.json", timeout=BOUND).json()
    return served


@pytest.fixture(scope="module")
def schema(document: Object) -> BaseSchema:
    components = document["components"]
    schemas = {name: shallow(schema, LEVELS) for name, schema in components["schemas"].items()}
    return schemathesis.openapi.from_dict({**document, "components": {**components, "schemas": schemas}})


@pytest.fixture(scope="module")
def session(endpoints: Endpoints) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(endpoints.ca_cert)
        yield session


def operation_of(schema: BaseSchema, label: str) -> APIOperation[Any, Any, Any, Any]:
    method, _, path = label.partition(" ")
    operation: APIOperation[Any, Any, Any, Any] = schema[path][method]
    return operation


class Attempt:
    """Sends a case with the attacker's token, and has schemathesis look at the answer."""

    def __init__(self, battle: Battle, endpoints: Endpoints, session: requests.Session) -> None:
        name, value = battle.bearer
        self._battle = battle
        self._with: dict[str, Any] = {
            "base_url": endpoints.gateway_url,
            "session": session,
            "headers": {name: value},
            "timeout": BOUND,
            # For its requests without a token it has a session of its own.
            "verify": str(endpoints.ca_cert),
        }

    def __call__(self, case: Case[Any]) -> None:
        response = case.call(**self._with)
        self._battle.figures.count("OpenAPI", response.status_code, response.elapsed)
        assert response.status_code < 500
        case.validate_response(response, transport_kwargs=self._with, excluded_checks=LEFT_OUT)


@pytest.fixture(scope="module")
def attempt(battle: Battle, endpoints: Endpoints, session: requests.Session) -> Attempt:
    return Attempt(battle, endpoints, session)


def test_what_it_serves_is_what_it_offers(document: Object) -> None:
    assert document == json.loads(json.dumps(openapi()))
    served = {
        f"{key.upper()} {path}" for path, item in document["paths"].items() for key in item if key != "parameters"
    }
    assert served == {*OFFERED, *PUBLIC}


@pytest.mark.parametrize("label", [*OFFERED, *PUBLIC])
def test_it_does_as_it_says_place_by_place(attempt: Attempt, schema: BaseSchema, label: str) -> None:
    operation, config = operation_of(schema, label), schema.config.generation
    cases = list(schema.iter_coverage_cases(operation, generation_modes=config.modes, generation_config=config))
    wanted = 20 * hypothesis.settings().max_examples // USUAL
    for case in islice(cases, 0, None, max(1, len(cases) // wanted)):
        attempt(case)


@pytest.mark.parametrize("label", OFFERED)
@pytest.mark.parametrize("mode", GenerationMode)
@effort(3)
@given(data=st.data())
def test_it_does_as_it_says_by_chance(
    attempt: Attempt, schema: BaseSchema, label: str, mode: GenerationMode, data: st.DataObject
) -> None:
    attempt(data.draw(operation_of(schema, label).as_strategy(mode)))
