"""Who one is, is said by the token alone: every header that claims it otherwise is refused, or means nothing.

Refused or harmless is what the audit log says in the end (test_verdict.py); here it is what the answers say.
"""

import pytest

from tests.attack.conftest import Battle
from tests.attack.wire import Header, Wire, framed

ADMIN = "system:admin"
OTHERS = "system:serviceaccount:kube-system:default"

FORGED = [
    "Impersonate-User",
    "impersonate-user",
    "IMPERSONATE-USER",
    "iMpErSoNaTe-UsEr",
    "Impersonate-Group",
    "Impersonate-Uid",
    "Impersonate-Extra-Scopes",
    "Impersonate-Extra-authentication.kubernetes.io%2fcredential-id",
    "Impersonate-",
    "X-Remote-User",
    "x-remote-user",
    "X-Remote-Group",
    "X-Remote-Uid",
    "X-Remote-Extra-Scopes",
    "X-REMOTE-",
]


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("value", [ADMIN, "system:masters", OTHERS, ""])
def test_a_header_that_impersonates_is_refused(battle: Battle, wire: Wire, name: str, value: str) -> None:
    answer = wire.exchange("forged header", "GET", "/virtualmachines", [battle.bearer, (name, value)])
    assert answer.code == 400
    assert name.lower() in answer.json()["message"]


# A server that takes an underscore for a hyphen (CGI's way) would take these for forged ones.
HARMLESS = [
    "Impersonate_User",
    "X_Remote_User",
    "Impersonate",
    "X-Forwarded-User",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Access-Token",
    "X-Real-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-Auth-Request-User",
    "Remote-User",
    "Forwarded",
    "Audit-ID",
    "Proxy-Authorization",
    "Via",
    "TE",
    "Keep-Alive",
    "Proxy-Connection",
    "Sec-WebSocket-Protocol",
    "Cookie",
]


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("value", [ADMIN, "/virtualmachines?namespace=kube-system", "DELETE"])
def test_a_header_that_others_believe_means_nothing(battle: Battle, wire: Wire, name: str, value: str) -> None:
    answer = wire.exchange("foreign header", "GET", "/virtualmachines/kept", [battle.bearer, (name, value)])
    assert answer.code in (200, 400)
    assert answer.code == 400 or answer.json()["metadata"]["namespace"] == battle.attacker.namespace


def test_two_tokens_are_none(battle: Battle, wire: Wire) -> None:
    victims = ("Authorization", f"Bearer {battle.victims_token}")
    for pair in ([battle.bearer, victims], [victims, battle.bearer], [battle.bearer, battle.bearer]):
        assert wire.exchange("two tokens", "GET", "/virtualmachines", pair).code == 400
        other_case = [pair[0], ("authorization", pair[1][1])]
        assert wire.exchange("two tokens", "GET", "/virtualmachines", other_case).code == 400


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", " "])
def test_a_list_of_tokens_is_none(battle: Battle, wire: Wire, separator: str) -> None:
    for value in (
        f"Bearer {battle.token}{separator}Bearer {battle.victims_token}",
        f"Bearer {battle.token}{separator}{battle.victims_token}",
        f"Basic YTpi{separator}Bearer {battle.token}",
    ):
        answer = wire.exchange("list of tokens", "GET", "/virtualmachines", [("Authorization", value)])
        assert answer.code == 401


@pytest.mark.parametrize(
    "listed", ["authorization", "Authorization, close", "x-request-id", "host", "content-length"]
)
def test_a_hop_by_hop_header_takes_nothing_away(battle: Battle, wire: Wire, listed: str) -> None:
    answers = wire.volley(
        "hop by hop", framed("GET", "/virtualmachines/kept", [("Connection", listed), battle.bearer])
    )
    assert answers[0].code in (200, 400, 401)


@pytest.mark.parametrize(
    "form", ["https://gateway", "http://127.0.0.1:1", "https://kubernetes.default.svc", "ftp://x"]
)
def test_an_absolute_target_is_this_server_all_the_same(battle: Battle, wire: Wire, form: str) -> None:
    for path in ("/virtualmachines/kept", "/api/v1/secrets", "//api/v1/secrets"):
        answers = wire.volley("absolute target", framed("GET", form + path, [battle.bearer]))
        assert answers[0].code in (200, 400, 404)
        assert answers[0].code != 200 or path.endswith("kept")


@pytest.mark.parametrize(
    "host", ["", "kubernetes.default.svc", "127.0.0.1:1", "gateway, other", "a b", "\x7f", "é", "[::1", "../.."]
)
def test_a_host_means_nothing(battle: Battle, wire: Wire, host: str) -> None:
    for path, code in (("/virtualmachines/kept", 200), ("/nowhere", 404), ("/healthz", 200)):
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {battle.token}"]
        answers = wire.volley("host", "\r\n".join([*lines, "", ""]).encode())
        assert answers[0].code in (code, 400)


SMUGGLED = b"DELETE /virtualmachines/kept HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n\r\n"
FRAMINGS: list[list[Header]] = [
    [("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", "chunked"), ("Content-Length", "4")],
    [("Content-Length", "0"), ("Content-Length", "%d")],
    [("Content-Length", "%d"), ("Content-Length", "0")],
    [("Content-Length", "0, %d")],
    [("Content-Length", "+%d")],
    [("Content-Length", "-1")],
    [("Content-Length", "0x10")],
    [("Content-Length", "1_0")],
    [("Content-Length", " ")],
    [("Content-Length", "99999999999999999999999")],
    [("Transfer-Encoding", "identity, chunked")],
    [("Transfer-Encoding", "gzip, chunked")],
    [("Transfer-Encoding", "chunked, identity")],
    [("Transfer-Encoding", "xchunked")],
    [("Transfer-Encoding", "\x0bchunked")],
    [("Transfer-Encoding ", "chunked")],
    [("Transfer-Encoding", "cow"), ("Transfer-Encoding", "chunked")],
]


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_smuggled_in_a_body(battle: Battle, wire: Wire, framing: list[Header], method: str) -> None:
    hidden = b"0\r\n\r\n" + SMUGGLED % battle.token.encode()
    headers: list[Header] = [battle.bearer, ("Content-Type", "application/json")]
    headers += [(name, str(value).replace("%d", str(len(hidden)))) for name, value in framing]
    answers = wire.volley("smuggling", framed(method, "/virtualmachines", headers) + hidden)
    assert [answer.code for answer in answers if answer.code not in (400, 411, 413, 415, 501)] in ([], [200])


def test_the_machine_that_was_to_be_smuggled_away_is_there(battle: Battle, wire: Wire) -> None:
    assert wire.exchange("smuggling", "GET", "/virtualmachines/kept", [battle.bearer]).code == 200


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: b\r\n Authorization: Bearer forged",
        b"X-A: b\r\n\tImpersonate-User: system:admin",
        b" Impersonate-User: system:admin",
        b"Impersonate-User : system:admin",
        b"Impersonate-User\t: system:admin",
        b"\x0bImpersonate-User: system:admin",
        b"X-A: b\nImpersonate-User: system:admin",
        b"X-A: b\rImpersonate-User: system:admin",
        b"X-A: b\x00\r\nImpersonate-User\x00: system:admin",
        b"Impersonate-User\x00: system:admin",
        b"Impersonate\xadUser: system:admin",
        "Impersonate\u2010User: system:admin".encode(),
        "İmpersonate-User: system:admin".encode(),
        b"X-A: \x00",
        b"X-A: \xff\xfe\xed\xa0\x80",
        b"X-Request-Id: \xff\xff\xff\xff\xff\xff\xff\xff",
        b"X-Request-Id: aaaaaaaa\r\nX-Request-Id: bbbbbbbb",
        b"X-Request-Id: " + b"a" * 48 + b"-tokenreview",
        b"X-A",
        b": no name",
        b"X-A:" + b" " * 5000 + b"b",
        b"\xef\xbb\xbfImpersonate-User: system:admin",
    ],
)
def test_a_header_that_is_odd_is_refused_or_means_nothing(battle: Battle, wire: Wire, line: bytes) -> None:
    request = b"GET /virtualmachines/kept HTTP/1.1\r\nHost: gateway\r\n%s\r\nAuthorization: Bearer %s\r\n\r\n"
    answers = wire.volley("odd header", request % (line, battle.token.encode()))
    assert answers[0].code in (200, 400)
