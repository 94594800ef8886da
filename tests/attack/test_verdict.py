"""After all attacks (pytest takes files by name): what the cluster itself says that they have done."""

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from tests.attack.breaches import GATEWAY, breach, events_since
from tests.attack.conftest import Battle, gateway_of, memory_of
from tests.attack.parties import Platform, until
from tests.attack.wire import Wire

GROWTH = 64 * 2**20
"""Bytes that the gateway may have grown by: its own code for a first YAML body, buffers, and what it caches."""


def test_the_audit_log_has_no_breach(battle: Battle, wire: Wire, endpoints: Endpoints) -> None:
    last = wire.exchange("verdict", "GET", "/virtualmachines/kept", [battle.bearer])
    assert last.code == 200

    # Events are written as requests end: behind the last one are all of them.
    until(lambda: last.request_id in endpoints.audit_log.read_text())
    events = list(events_since(endpoints.audit_log, battle.audit_offset))
    battle.figures.events = len(events)
    forwarded = [event for event in events if event["user"]["username"] == GATEWAY and "impersonatedUser" in event]
    assert forwarded[-1]["auditID"] == last.request_id
    reached = battle.refused & {event["auditID"] for event in events}
    assert not reached, "These were answered with 401, and sent on"
    breaches = [told for event in events if (told := breach(event, battle.senders, battle.attacker))]
    assert not breaches, "\n".join(breaches[:20])


def test_no_token_is_in_a_log(battle: Battle, cluster: LocalCluster) -> None:
    logs = list((cluster.folder / "logs").iterdir())
    assert {"audit.log", "gateway-access.log"} <= {log.name for log in logs}
    # What of a token is nowhere else: its signature, or what stands for one.
    secrets = {
        secret.encode()
        for token in (*battle.tokens, battle.token, battle.victims_token)
        if len(secret := token.rpartition(".")[2]) > 20
    }
    for log in logs:
        text = log.read_bytes()
        assert [secret for secret in secrets if secret in text] == [], log


def test_the_victims_objects_are_as_they_were(battle: Battle, platform: Platform) -> None:
    objects = platform.objects()
    assert objects.keys() >= {key for key in battle.objects if key[1] == battle.victim.namespace}
    of_the_victim = {key: value for key, value in objects.items() if key[1] == battle.victim.namespace}
    assert of_the_victim == {key: battle.objects.get(key) for key in of_the_victim}


def test_nothing_is_new_outside_the_attackers_namespace(battle: Battle, platform: Platform) -> None:
    known = {uid for uid, _ in battle.objects.values()}
    new = [key for key, (uid, _) in platform.objects().items() if uid not in known]
    parties = {battle.attacker.namespace, *(account.namespace for account in battle.senders.values())}
    assert [key for key in new if key[1] not in parties] == []


def test_the_gateway_has_neither_died_nor_grown(battle: Battle, cluster: LocalCluster) -> None:
    gateway = gateway_of(cluster)
    assert (gateway.pid, gateway.restarts) == (battle.gateway.pid, battle.gateway.restarts), gateway.last_lines
    before, after = battle.figures.memory[0], memory_of(gateway)
    battle.figures.memory = (before, after)
    assert after - before <= GROWTH
