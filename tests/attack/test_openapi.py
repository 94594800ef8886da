"""What the gateway says of itself at /openapi.json, held against what it does: schemathesis writes the requests.

It goes through every operation with what the document allows and with what it forbids, and asks of each answer that
the document knows it: code, content type, headers and body. Its check that data of the document's kind is always
accepted is left out: whether there is a machine of a name, and what one may be, only the kube-apiserver knows.
"""

import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from requests.adapters import HTTPAdapter
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from clusters.endpoints import Endpoints
from clusters.gateway.openapi import openapi
from tests.attack.conftest import Battle
from tests.attack.effort import effort
from tests.attack.wire import BOUND

schema = schemathesis.openapi.from_dict(openapi())


@pytest.fixture(scope="module")
def session(endpoints: Endpoints) -> Iterator[requests.Session]:
    context = ssl.create_default_context(cafile=str(endpoints.ca_cert))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options, ssl_context=context)

    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", Adapter())
        yield session


@schema.parametrize()
@effort(20)
def test_it_does_as_it_says(battle: Battle, endpoints: Endpoints, session: requests.Session, case: Case) -> None:
    name, value = battle.bearer
    sent_with: dict[str, Any] = {"base_url": endpoints.gateway_url, "session": session, "headers": {name: value}}
    response = case.call(**sent_with, timeout=BOUND)
    battle.figures.count("OpenAPI", response.status_code, response.elapsed)
    assert response.status_code < 500
    case.validate_response(response, transport_kwargs=sent_with, excluded_checks=[positive_data_acceptance])


def test_what_it_serves_is_this_document(endpoints: Endpoints, session: requests.Session) -> None:
    answer = session.get(f"{endpoints.gateway_url}/openapi.json", timeout=BOUND)
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(openapi()))
