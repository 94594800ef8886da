"""What was done to each object, and what became of it, aspect by aspect.

A controller that looks at what is there, not at what changed, may or may not see a state in between, and writes
several things at once or one after the other, as it happens. So writes are not compared one by one: each is taken
apart into the steps it made, each in an aspect of the object (its phase, one of its conditions, its life), and
what changed nothing is no step. Within an aspect the order is strict.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.names import Names
from tests.conformance.records import ROLES, STATUS_FIELDS, Record
from virtflow.kube import Object

__all__ = ["LIFE", "Memory", "Step", "counted", "course_of", "steps_of"]

LIFE = "life"
"""The aspect of being made, changed as a whole, bound, asked to go."""

AT_FIRST = {"created": "no", "ready": "no", "replicas": "0", "readyReplicas": "0"}
COUNTS = ("replicas", "readyReplicas")
FIELDS = tuple(name for names in STATUS_FIELDS.values() for name in names)
HAS_STATUS_SUBRESOURCE = ("VirtualMachine", "VirtualMachineInstanceReplicaSet", "Pod")


@dataclass(frozen=True)
class Step:
    """One thing that one write did to one object."""

    at: float
    actor: str
    kind: str
    name: str
    life: int
    """Which object of this name: 0 was there before, 1 is the first that was made since."""
    aspect: str
    value: str


@dataclass
class Memory:
    """What is known of a namespace's objects when a situation begins; carried on to the next one."""

    names: Names
    states: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    finalizers: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


def steps_of(records: Iterable[Record], memory: Memory) -> list[Step]:
    """The steps of one situation, by object, in the order in which they took effect."""
    of_object: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.at):
        memory.names.learn(record.kind, record.name, record.uid)
        # What was never made has no name of its own: tries under names drawn anew are tries of one thing.
        name = memory.names.mask(record.name) if record.refused else record.name
        of_object[record.kind, name].append(record)
    return [step for key, of_one in of_object.items() for step in _steps_of_object(key, of_one, memory)]


def _steps_of_object(key: tuple[str, str], records: list[Record], memory: Memory) -> Iterator[Step]:
    life = 0
    for record in _in_order_of_effect(records):
        creates = record.verb == "create" and not record.subresource and not record.refused
        if creates:
            life += 1
            memory.states[key], memory.finalizers[key] = {}, record.finalizers or ()
        for aspect, value in _changes(record, memory, creates):
            yield Step(record.at, record.actor, *key, life, aspect, memory.names.mask(value))


def _in_order_of_effect(records: list[Record]) -> list[Record]:
    """By version where it is known: what arrives first need not be written first."""
    versioned = iter(
        sorted((each for each in records if each.version is not None), key=lambda each: each.version or 0)
    )
    return [each if each.version is None else next(versioned) for each in records]


def _changes(record: Record, memory: Memory, creates: bool) -> Iterator[tuple[str, str]]:
    if record.refused:
        yield LIFE, f"fails to {record.verb} it ({record.refused})"
        return
    if record.actor and record.actor not in ROLES:
        yield "strangers", "writes"
    if creates:
        yield LIFE, "creates"
    elif record.subresource == "binding":
        yield LIFE, "binds"
    elif record.verb == "delete":
        yield LIFE, "deletes"
    elif record.verb == "patch":
        yield from _patched(record.patch)
    elif not record.subresource and record.kind in HAS_STATUS_SUBRESOURCE:
        yield LIFE, "updates"
    yield from _freed(record, memory)
    if _writes_state(record, creates):
        yield from _state_changes(record, memory.states.setdefault((record.kind, record.name), {}))


def _freed(record: Record, memory: Memory) -> Iterator[tuple[str, str]]:
    """Finalizers that an update takes away; a patch says so itself."""
    key = record.kind, record.name
    if record.finalizers is None:
        return
    if record.verb == "update" and key in memory.finalizers:
        for each in sorted(set(memory.finalizers[key]) - set(record.finalizers)):
            yield f"finalizer {each}", "removes"
    memory.finalizers[key] = record.finalizers


def _patched(patch: Any) -> Iterator[tuple[str, str]]:
    """What a patch does outside the status, which is followed by its state."""
    if isinstance(patch, dict):
        if "spec" in patch:
            yield "spec", f"sets {', '.join(f'{name}={value}' for name, value in patch['spec'].items())}"
        return
    for test, replace in itertools.pairwise(patch or ()):
        section, _, field_name = replace["path"].removeprefix("/").partition("/")
        if section != "metadata" or test["op"] != "test" or test["path"] != replace["path"]:
            continue
        old, new = test.get("value") or (), replace.get("value") or ()
        # 'finalizers' to 'finalizer NAME'
        aspect = field_name.removesuffix("s")
        yield from ((f"{aspect} {gone}", "removes") for gone in sorted(set(old) - set(new)))
        yield from ((f"{aspect} {added}", "adds") for added in sorted(set(new) - set(old)))
        if isinstance(old, dict) and isinstance(new, dict):
            changed = (name for name in sorted(old.keys() & new.keys()) if old[name] != new[name])
            yield from ((f"{aspect} {name}", f"sets to {new[name]}") for name in changed)


def _writes_state(record: Record, creates: bool) -> bool:
    if record.verb == "delete" or record.subresource in ("scale", "binding"):
        return False
    return creates or record.subresource == "status" or record.kind not in HAS_STATUS_SUBRESOURCE


def _state_changes(record: Record, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    new = dict(record.state)
    if record.kind != "Pod":
        # The state is whole: what is not in it is not there.
        new |= {aspect: AT_FIRST.get(aspect, "absent") for aspect in known.keys() - new.keys()}
    for aspect, value in sorted(new.items()):
        if not _touches(record.patch, aspect):
            continue
        old = known.get(aspect, AT_FIRST.get(aspect, "absent"))
        if value != old:
            yield aspect, f"{old} to {value}" if aspect in COUNTS else value
        known[aspect] = value


def _touches(patch: Any, aspect: str) -> bool:
    """Whether a write may have changed an aspect: a JSON patch says of what it does not."""
    if not isinstance(patch, list):
        return True
    paths = {each["path"] for each in patch}
    return f"/status/{aspect}" in paths or (aspect not in FIELDS and "/status/conditions" in paths)


def course_of(steps: Iterable[Step], names: Names) -> list[Object]:
    """By object what it went through: its alias, and of each aspect the steps, as 'actor value'.

    Equal histories of objects with drawn names once, with how many times; of one name, in the order of their lives.
    """
    of_object: defaultdict[tuple[str, str, int], list[Step]] = defaultdict(list)
    for step in steps:
        of_object[step.kind, step.name, step.life].append(step)
    histories = []
    for (kind, name, _), of_one in sorted(of_object.items()):
        aspects: defaultdict[str, list[Step]] = defaultdict(list)
        for step in of_one:
            aspects[step.aspect].append(step)
        told = {aspect: list(_told(aspect, of_aspect)) for aspect, of_aspect in sorted(aspects.items())}
        histories.append({"object": names.alias(kind, name), **told})
    return counted(histories)


def _told(aspect: str, steps: list[Step]) -> Iterator[str]:
    """Repeated steps once; of a number that rises or falls only how far: how fast is nobody's promise."""
    if aspect not in COUNTS:
        yield from (told for told, _ in itertools.groupby(f"{step.actor} {step.value}".strip() for step in steps))
        return

    def direction(step: Step) -> tuple[str, bool]:
        old, new = map(int, step.value.split(" to "))
        return step.actor, new > old

    for (actor, _), run in itertools.groupby(steps, key=direction):
        values = [step.value.split(" to ") for step in run]
        yield f"{actor} {values[0][0]} to {values[-1][1]}".strip()


def counted(told: Iterable[Object]) -> list[Object]:
    """Equal ones once, with `times` if they are several. Those of one object stay in their order."""
    result: list[Object] = []
    for each in told:
        same = next((other for other in result if {**other, "times": 1} == {**each, "times": 1}), None)
        if same is None:
            result.append({**each})
        else:
            same["times"] = same.get("times", 1) + 1
    return sorted(result, key=lambda each: str(each["object"]))
