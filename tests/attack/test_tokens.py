"""Tokens that are none, of every kind: one answer for all of them, the true reason in the log, and nothing done.

That nothing of such a request reached the tenant's objects, and that no log has a token, is seen at the end
(test_verdict.py), when all logs are written.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, example, given
from hypothesis import strategies as st

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from tests.attack.breaches import Account
from tests.attack.conftest import Battle
from tests.attack.effort import effort
from tests.attack.forging import Forger, decoded
from tests.attack.parties import Platform, until
from tests.attack.token_kinds import INVALID, KINDS, NO_TOKEN, now
from tests.attack.wire import Answer, Header, Wire
from virtflow.kube import Object, Resource
from virtflow.kube.resources import PODS, SECRETS, SERVICE_ACCOUNTS, VMS

PATH = "/virtualmachines"
REVOKED_WITHIN = timedelta(seconds=20)
"""Ten for which the kube-apiserver keeps a good token's review, and ten for which the gateway does."""
SLACK = timedelta(seconds=10)
"""For a machine that is busy, where requests and watches take their time, too."""


@pytest.fixture(scope="module")
def forger(battle: Battle, cluster: LocalCluster) -> Forger:
    return Forger.with_key(battle.token, cluster.folder / "pki" / "service-accounts.key")


@pytest.fixture(scope="module")
def public_key(cluster: LocalCluster) -> x509.Certificate:
    return x509.load_pem_x509_certificate((cluster.folder / "pki" / "service-accounts.crt").read_bytes())


@pytest.fixture(scope="module")
def unauthorized(endpoints: Endpoints) -> Object:
    """The kube-apiserver's own Status for who is nobody."""
    server = yaml.safe_load(endpoints.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    wire = Wire(server, endpoints.ca_cert, lambda _, __: None)
    try:
        answer = wire.exchange("", "GET", VMS.path(), bearer("nobody"))
    finally:
        wire.close()
    assert answer.code == 401
    status: Object = answer.json()
    return status


def bearer(token: str) -> list[Header]:
    return [("Authorization", f"Bearer {token}")]


class Refusals:
    """Sends tokens that are none, and looks at what is answered and what the operator is told."""

    def __init__(self, battle: Battle, wire: Wire, endpoints: Endpoints, status: Object) -> None:
        self._battle = battle
        self._wire = wire
        self._access_log = endpoints.access_log
        self._status = status
        self._of_nobody = wire.exchange("token", "GET", PATH)

    def send(self, headers: list[Header], token: str = "") -> Answer:
        answer = self._wire.exchange("token", "GET", PATH, headers)
        self.check(answer)
        if token:
            self._battle.tokens.add(token)
        return answer

    def check(self, answer: Answer) -> None:
        """The kube-apiserver's own refusal, and the request's id: nothing that tells one kind from another."""
        assert answer.code == 401
        status = answer.json()
        assert status.pop("details") == {"causes": [{"reason": "RequestId", "message": answer.request_id}]}
        assert status == self._status
        assert answer.headers["www-authenticate"] == "Bearer"
        assert heads_of(answer) == heads_of(self._of_nobody)

    def reason(self, answer: Answer) -> str:
        """What the operator reads."""

        def written() -> Object | None:
            for line in self._access_log.read_text().splitlines(keepends=True):
                if answer.request_id in line and line.endswith("\n"):
                    record: Object = json.loads(line)
                    return record
            return None

        record = until(written)
        assert (record["verdict"], record["code"], record["user"], record["tenant"]) == (
            "unauthenticated",
            401,
            "",
            "",
        )
        return str(record["reason"])


def heads_of(answer: Answer) -> Object:
    return {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}


@pytest.fixture(scope="module")
def refusals(battle: Battle, wire: Wire, endpoints: Endpoints, unauthorized: Object) -> Refusals:
    return Refusals(battle, wire, endpoints, unauthorized)


def test_a_token_that_the_cluster_signed_is_good(battle: Battle, wire: Wire, forger: Forger) -> None:
    """What makes the rest of these tests say something: nothing is wrong with the forger's own signatures."""
    for token in (forger.token, forger.genuine(), forger.genuine(exp=now() + 60)):
        battle.tokens.add(token)
        assert wire.exchange("token", "GET", PATH, bearer(token)).code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_is_none_is_refused(refusals: Refusals, forger: Forger, kind: str) -> None:
    forge, reason = KINDS[kind]
    token = forge(forger)
    assert re.search(reason, refusals.reason(refusals.send(bearer(token), token)))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_secret(
    refusals: Refusals, forger: Forger, public_key: x509.Certificate, algorithm: str
) -> None:
    key = public_key.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = [
        pem,
        pem.strip(),
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        public_key.public_bytes(Encoding.PEM),
        b"",
    ]
    for secret in secrets:
        token = forger.hashed(secret, algorithm)
        assert INVALID in refusals.reason(refusals.send(bearer(token), token))


@pytest.mark.parametrize(
    "scheme", ["", "Basic", "Digest", "Token", "Negotiate", "Bearers", "Bearer:", "Bear er", "JWT", "B\u0435arer"]
)
def test_another_scheme_is_no_token(refusals: Refusals, battle: Battle, scheme: str) -> None:
    answer = refusals.send([("Authorization", f"{scheme} {battle.token}")])
    assert NO_TOKEN in refusals.reason(answer)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
def test_the_schemes_case_means_nothing(battle: Battle, wire: Wire, scheme: str) -> None:
    assert wire.exchange("token", "GET", PATH, [("Authorization", f"{scheme} {battle.token}")]).code == 200


def test_no_token_at_all(refusals: Refusals) -> None:
    assert NO_TOKEN in refusals.reason(refusals.send([]))
    assert NO_TOKEN in refusals.reason(refusals.send([("Authorization", "")]))


@pytest.mark.parametrize(
    "name", ["token", "access_token", "bearer_token", "id_token", "authorization", "Authorization"]
)
def test_a_token_elsewhere_is_none(refusals: Refusals, battle: Battle, wire: Wire, name: str) -> None:
    refusals.send([("Cookie", f"{name}={battle.token}; {name}=Bearer {battle.token}")])
    if name.lower() != "authorization":
        refusals.send([(f"X-{name}", f"Bearer {battle.token}"), (name, battle.token)])
    target = f"{PATH}?{name}={battle.token}"
    refusals.check(wire.exchange("token", "GET", target))
    form = f"{name}={battle.token}".encode()
    refusals.check(
        wire.exchange("token", "POST", PATH, [("Content-Type", "application/x-www-form-urlencoded")], form)
    )
    body = json.dumps({name: battle.token}).encode()
    refusals.check(wire.exchange("token", "POST", PATH, [("Content-Type", "application/json")], body))


@effort(150)
@given(st.data())
def test_a_good_token_with_a_fault_is_none(refusals: Refusals, forger: Forger, data: st.DataObject) -> None:
    token = forger.token
    at = data.draw(st.integers(0, len(token) - 1))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text("ABCabc019-_.=+/~", max_size=3))
    faulty = token[:at] + put + token[at + cut :]
    assume(meaning(faulty) != meaning(token))
    refusals.send(bearer(faulty))


def meaning(token: str) -> object:
    """Of base64's letters, a part's last may have bits that mean nothing."""
    try:
        return [decoded(part) for part in token.split(".")]
    except ValueError:
        return token


@effort(150)
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")))
@example("Bearer")
@example("Bearer ")
@example("Bearer ,")
@example("Bearer null")
@example("Bearer undefined")
@example("Bearer " + "a" * 7000)
def test_an_authorization_of_any_letters_is_none(refusals: Refusals, text: str) -> None:
    refusals.send([("Authorization", text.encode("latin-1"))])


@dataclass(frozen=True)
class Revocation:
    """What ends a token, given by name what to do and to which account; and what the operator then reads."""

    revoke: Callable[[Platform, Account], object]
    reason: str
    bound_to: tuple[Resource, Object] | None = None


def delete_account(platform: Platform, who: Account) -> None:
    platform.do(lambda kube: kube.delete(SERVICE_ACCOUNTS, who.name, who.namespace))


def make_account_anew(platform: Platform, who: Account) -> None:
    delete_account(platform, who)
    platform.account(who)


def delete_what_is_bound(resource: Resource) -> Callable[[Platform, Account], object]:
    return lambda platform, who: platform.do(
        lambda kube: kube.delete(resource, "bound", who.namespace, grace_seconds=0)
    )


POD: Object = {"containers": [{"name": "c", "image": "registry.example/c"}]}
GONE = "not found|deleted|invalid"
REVOCATIONS = {
    "account deleted": Revocation(delete_account, "not found|deleted"),
    "account made anew": Revocation(make_account_anew, "UID|not found|deleted"),
    "secret deleted": Revocation(delete_what_is_bound(SECRETS), GONE, (SECRETS, {})),
    "pod deleted": Revocation(delete_what_is_bound(PODS), GONE, (PODS, {"spec": POD})),
}


@pytest.fixture(scope="module")
def revoked(battle: Battle, platform: Platform, endpoints: Endpoints) -> Iterator[dict[str, Answer]]:
    """The first refusal of each token that was good before: what the kube-apiserver and the gateway remember of
    it makes that late, so all are revoked at once."""
    answers: dict[str, Answer] = {}
    with ExitStack() as stack:
        ask: dict[str, Callable[[], Answer]] = {}
        accounts: dict[str, Account] = {}
        for kind, revocation in REVOCATIONS.items():
            who = accounts[kind] = stack.enter_context(platform.tenant("revoked"))
            token = token_of(platform, who, revocation)
            battle.tokens.add(token)
            wire = Wire(endpoints.gateway_url, endpoints.ca_cert, battle.witness_of(who))
            stack.callback(wire.close)
            ask[kind] = partial(wire.exchange, "revoked token", "GET", PATH, bearer(token))
            assert ask[kind]().code == 200
        began = time.monotonic()
        for kind, revocation in REVOCATIONS.items():
            revocation.revoke(platform, accounts[kind])

        def refused() -> bool:
            for kind in REVOCATIONS.keys() - answers.keys():
                answer = ask[kind]()
                if answer.code == 401:
                    answers[kind] = answer
                    battle.figures.revoked = time.monotonic() - began
            return len(answers) == len(REVOCATIONS)

        until(refused, within=REVOKED_WITHIN + SLACK)
        for kind in REVOCATIONS:
            assert {ask[kind]().code for _ in range(5)} == {401}
        yield answers


def token_of(platform: Platform, who: Account, revocation: Revocation) -> str:
    if revocation.bound_to is None:
        return platform.token(who)
    resource, body = revocation.bound_to
    made = {**body, "metadata": {"name": "bound"}}
    if resource is PODS:
        made["spec"] = {**body["spec"], "serviceAccountName": who.name}
    bound = platform.create(resource, made, who.namespace)
    return platform.token(who, bound_to=bound)


@pytest.mark.parametrize("kind", REVOCATIONS)
def test_a_token_that_is_revoked_is_refused(refusals: Refusals, revoked: dict[str, Answer], kind: str) -> None:
    refusals.check(revoked[kind])
    assert re.search(REVOCATIONS[kind].reason, refusals.reason(revoked[kind]))
