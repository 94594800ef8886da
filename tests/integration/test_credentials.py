"""No credential that was used is anywhere but in the memory of who used it.

A worker that notes every token it gets, forges or makes up, and what it puts into secrets, works for a scenario that
uses all of them. Then each is looked for in Temporal's database, in histories, in all logs and in the bundle of a
failure. That the looking finds what is there, a word in the scenario's name shows.
"""

import asyncio
import base64
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import Client, WorkflowHandle

from clusters.endpoints import ENDPOINTS_FILE, Endpoints
from clusters.local import LocalCluster
from clusters.supervisor import Supervisor
from tests.integration.noting_worker import NOTES
from virtflow.bundle import Failure, write_bundle
from virtflow.temporal import TASK_QUEUE, connect
from workflows.access_models import AccessOrder, Door, DoorRequest, SecretOrder, Withdrawal, WithdrawnTokenOrder
from workflows.labels import SCENARIO, labels_of
from workflows.models import Bearer, GatewayRequest, ScenarioOrder, Verb, VirtualMachineOrder
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario
from workflows.tenant_models import Tenant, TenantOrder

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MANIFEST = (ROOT / "features" / "manifests" / "test-vm.yaml").read_text()
CANARY = "canary-5b1f0e9c"
RUN = "it-credentials"
LABELS = labels_of(RUN)
WITHIN = 180
PAYLOAD = re.compile(rb'"data": "([^"]*)"')
TOKEN = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.")
"""Of whomever: a header, claims, and a signature to come. Fewer letters are in binary files by chance."""

Handle = WorkflowHandle[Scenario, list[str]]


@pytest.fixture
def notes(cluster: LocalCluster, tmp_path: Path) -> Iterator[Path]:
    """Of a worker that takes the place of the cluster's own."""
    supervisor, notes = Supervisor(cluster.folder), tmp_path / "notes"
    supervisor.stop_program("worker")
    command = [sys.executable, "-m", "tests.integration.noting_worker", str(cluster.folder / ENDPOINTS_FILE)]
    environment = os.environ | {NOTES: str(notes), "PYTHONPATH": str(ROOT)}
    try:
        with (cluster.folder / "logs" / "noting-worker.log").open("wb") as log:
            worker = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        yield notes
        worker.kill()
        worker.wait()
    finally:
        supervisor.start("worker")


@pytest.fixture
async def scenario(notes: Path, endpoints: Endpoints) -> AsyncIterator[tuple[Client, Handle]]:
    temporal = await connect(endpoints)
    order = ScenarioOrder(RUN, "a feature", CANARY, LABELS, IDLE_TIMEOUT)
    handle = await temporal.start_workflow(Scenario.run, order, id=RUN, task_queue=TASK_QUEUE)
    yield temporal, handle
    await handle.signal(Scenario.end)
    with anyio.fail_after(WITHIN):
        assert await handle.result() == []


async def use_all_credentials(handle: Handle) -> None:
    order = TenantOrder("tenant-a", f"tenant-a-{LABELS[SCENARIO]}", LABELS)
    tenant: Tenant = await handle.execute_update(Scenario.create_tenant, order)
    machine = VirtualMachineOrder(tenant, MANIFEST, LABELS, timedelta(minutes=1))
    created = await handle.execute_update(Scenario.create_virtual_machine, machine)
    assert created.answer.code == 201
    for bearer in Bearer:
        answer = await handle.execute_update(
            Scenario.request_gateway, GatewayRequest(tenant, Verb.LIST, bearer=bearer)
        )
        assert answer.code == (200 if bearer is Bearer.TENANT else 401)
        await handle.execute_update(Scenario.read_logs, answer.request_id)
    await handle.execute_update(Scenario.create_secret, SecretOrder(tenant.namespace, "a-secret", LABELS))
    for door in Door:
        request = DoorRequest(tenant, door, "list", "virtualmachines", tenant.namespace)
        assert (await handle.execute_update(Scenario.request_at_door, request)).code == 200
    await handle.execute_update(Scenario.try_everything, AccessOrder([tenant], [tenant]))
    for withdrawal in Withdrawal:
        withdrawn = WithdrawnTokenOrder(tenant, withdrawal, timedelta(seconds=60), LABELS)
        assert (await handle.execute_update(Scenario.withdraw_token, withdrawn)).worked == 200


async def test_what_was_used_is_nowhere(
    scenario: tuple[Client, Handle], notes: Path, cluster: LocalCluster, endpoints: Endpoints, tmp_path: Path
) -> None:
    temporal, handle = scenario
    with anyio.fail_after(WITHIN):
        await use_all_credentials(handle)
    failure = Failure("f", CANARY, "a step", "an error", handle.id, LABELS, datetime.now(UTC) - timedelta(minutes=1))
    index = await write_bundle(tmp_path / "bundle", failure, endpoints, temporal)

    credentials = set((await asyncio.to_thread(notes.read_text)).split())
    assert len(credentials) >= 8
    # For each door, forged in two ways, withdrawn in two ways.
    assert sum(credential.startswith("eyJ") for credential in credentials) >= 6
    places = await asyncio.to_thread(lambda: dict(everywhere(cluster.folder, index.parent)))
    forms = [form for each in credentials for form in forms_of(each.encode())]
    assert {place for place, content in places.items() if any(form in content for form in forms)} == set()
    with_canary = {place.partition(" ")[0] for place, content in places.items() if CANARY.encode() in content}
    assert with_canary >= {"database", "bundle", "history"}
    assert {place for place, content in places.items() if TOKEN.search(content)} == set(), (
        "a token of somebody else's"
    )


def forms_of(credential: bytes) -> Iterator[bytes]:
    """Itself, and what each base64 text has of it, which depends on how many bytes are before it."""
    yield credential
    for before, foreign in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(credential)) // 3 * 4
        yield base64.b64encode(bytes(before) + credential)[foreign:whole]


@given(st.binary(), st.text("abcXYZ019-_.", min_size=20).map(str.encode), st.binary())
def test_a_credential_in_base64_is_found_wherever_it_begins(before: bytes, credential: bytes, after: bytes) -> None:
    content = base64.b64encode(before + credential + after)
    assert any(form in content for form in forms_of(credential))
    assert all(len(form) > 20 for form in list(forms_of(credential))[1:])


def everywhere(cluster: Path, bundle: Path) -> Iterator[tuple[str, bytes]]:
    """What is in it, by where it is."""
    yield "database", b"\n".join(values_in(cluster / "temporal.db"))
    for file in cluster.glob("temporal.db*"):
        yield f"file {file.name}", file.read_bytes()
    for file in (cluster / "logs").iterdir():
        yield f"log {file.name}", file.read_bytes()
    for file in bundle.rglob("*"):
        if file.suffix == ".json":
            yield f"history {file.name}", PAYLOAD.sub(lambda found: base64.b64decode(found[1]), file.read_bytes())
        elif file.is_file():
            yield f"bundle {file.name}", file.read_bytes()


def values_in(database: Path) -> Iterator[bytes]:
    """All of them: in the file itself a long one lies in pieces."""
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield from map(_bytes_of, row)


def _bytes_of(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
