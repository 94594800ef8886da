"""Two accounts of a situation, what was recorded and what was observed, and in what they differ.

A step that a real KubeVirt takes in some runs only is `{sometimes: step}` in what was recorded.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

from tests.conformance.course import LIFE
from virtflow.kube import Object

__all__ = ["ABOUT", "Account", "compare", "watched_part"]

Account = Object
"""`course`, `objects`, `events`, `columns`, as in the files; of what was observed `disorder`, too."""

Step = str | dict[str, str]
ABOUT = ("object", "times")
Differ = Callable[[Object, Object], Iterable[str]]
UNWATCHED = ("spec", "label ", "annotation ", "finalizer ")


def compare(recorded: Account, observed: Account) -> list[str]:
    """Every difference in a line; the first is the one that the others may follow from."""
    return [
        *observed.get("disorder", ()),
        *_differences(recorded["course"], observed["course"], _course_differences),
        *_differences(recorded["objects"], observed["objects"], _picture_differences),
        *_set_differences("the events", recorded["events"], observed["events"]),
        *_column_differences(recorded["columns"], observed["columns"]),
    ]


def watched_part(account: Account) -> Account:
    """What watches would have shown of it: no actors, no deletes, no binds, of pods that they were made."""
    course = []
    for history in account["course"]:
        kept = {
            name: steps for name, steps in history.items() if name not in ABOUT and not name.startswith(UNWATCHED)
        }
        kept[LIFE] = [step for step in kept.get(LIFE, ()) if _text(step).endswith("creates")]
        if history["object"].startswith("Pod "):
            kept = {LIFE: kept[LIFE]}
        seen = {aspect: [_without_actor(step) for step in steps] for aspect, steps in kept.items() if steps}
        if any(_text(step).endswith("deletes") for step in history.get(LIFE, ())):
            # A write that lets an object go is seen as its end only.
            seen = {aspect: [*steps[:-1], {"sometimes": _text(steps[-1])}] for aspect, steps in seen.items()}
        if seen:
            course.append({**{name: history[name] for name in ABOUT if name in history}, **seen})
    return {**account, "course": course}


def _text(step: Step) -> str:
    return step if isinstance(step, str) else step["sometimes"]


def _without_actor(step: Step) -> Step:
    if isinstance(step, dict):
        return {"sometimes": str(_without_actor(step["sometimes"]))}
    return step.partition(" ")[2] or step


def _differences(recorded: list[Object], observed: list[Object], differ: Differ) -> Iterator[str]:
    """Objects of one alias are paired so that they differ least; a drawn name does not tell which is which."""
    there = _by_alias(observed)
    for alias, expected in _by_alias(recorded).items():
        left = there.pop(alias, [])
        pairs = _closest(expected, left, differ) if "*" in alias else list(zip(expected, left, strict=False))
        for one, other in pairs:
            yield from (f"{alias}: {line}" for line in differ(one, other))
        if len(left) != len(expected):
            more = [each for each in left if not any(each is other for _, other in pairs)]
            yield f"{alias}: expected {_count(expected)}, observed {_count(left)}{_such_as(more)}"
    for alias, extra in there.items():
        yield f"{alias}: expected none, observed {_count(extra)}{_such_as(extra)}"


def _by_alias(entries: Iterable[Object]) -> dict[str, list[Object]]:
    found: defaultdict[str, list[Object]] = defaultdict(list)
    for entry in entries:
        found[entry["object"]] += [entry] * entry.get("times", 1)
    return dict(found)


def _closest(expected: list[Object], there: list[Object], differ: Differ) -> list[tuple[Object, Object]]:
    left, pairs = list(there), []
    # Those that agree with something first, so that no other takes it from them.
    for one in sorted(expected, key=lambda one: min((len(list(differ(one, other))) for other in there), default=0)):
        if left:
            other = min(left, key=lambda other: len(list(differ(one, other))))
            left.remove(other)
            pairs.append((one, other))
    return pairs


def _count(entries: Sized) -> str:
    return {0: "none", 1: "one"}.get(len(entries), str(len(entries)))


def _such_as(entries: list[Object]) -> str:
    """What the first of them is like, in a few words."""
    parts = ((name, part) for name, part in entries[0].items() if name not in ABOUT) if entries else ()
    name, part = next(iter(parts), ("", None))
    return f", of which one has {name} {part!r}" if name else ""


def _course_differences(recorded: Object, observed: Object) -> Iterator[str]:
    aspects = dict.fromkeys(name for name in (*recorded, *observed) if name not in ABOUT)
    for aspect in aspects:
        if line := _first_difference(recorded.get(aspect, ()), observed.get(aspect, ())):
            yield f"{aspect}: {line}"


def _first_difference(recorded: Sequence[Step], observed: Sequence[str]) -> str | None:
    """Where what was observed leaves what was recorded, None if it is a way through it."""
    # All the places in what was recorded where one can be, having seen so much.
    places = {0}
    for index, step in enumerate(observed):
        reachable = {after for place in places for after in _reachable(recorded, place)}
        following = {place + 1 for place in reachable if place < len(recorded) and _text(recorded[place]) == step}
        if not following:
            return f"expected {_next(recorded, places)}{_after(observed[:index])}, observed {step!r}"
        places = following
    if not any(len(recorded) in _reachable(recorded, place) for place in places):
        return f"expected {_next(recorded, places)}{_after(observed)}, observed nothing more"
    return None


def _reachable(recorded: Sequence[Step], place: int) -> Iterator[int]:
    yield place
    while place < len(recorded) and isinstance(recorded[place], dict):
        place += 1
        yield place


def _next(recorded: Sequence[Step], places: set[int]) -> str:
    words = {
        repr(_text(recorded[at])) if at < len(recorded) else "nothing"
        for place in places
        for at in _reachable(recorded, place)
    }
    return " or ".join(sorted(words))


def _after(seen: Sequence[str]) -> str:
    return f" after {seen[-1]!r}" if seen else ""


def _picture_differences(recorded: Object, observed: Object) -> Iterator[str]:
    for part in dict.fromkeys(name for name in (*recorded, *observed) if name not in ABOUT):
        expected, there = recorded.get(part), observed.get(part)
        if isinstance(expected or there, dict):
            for name in dict.fromkeys((*(expected or ()), *(there or ()))):
                one, other = (expected or {}).get(name), (there or {}).get(name)
                if one != other:
                    yield f"{part}.{name}: expected {one!r}, observed {other!r}"
        else:
            yield from _set_differences(part, expected or (), there or ())


def _set_differences(what: str, recorded: Iterable[str], observed: Iterable[str]) -> Iterator[str]:
    expected, there = set(recorded), set(observed)
    missing, extra = sorted(expected - there), sorted(there - expected)
    for index in range(max(len(missing), len(extra))):
        one = repr(missing[index]) if index < len(missing) else "nothing more"
        other = repr(extra[index]) if index < len(extra) else "nothing more"
        yield f"{what}: expected {one}, observed {other}"


def _column_differences(recorded: dict[str, list[str]], observed: dict[str, list[str]]) -> Iterator[str]:
    for resource in dict.fromkeys((*recorded, *observed)):
        expected, there = recorded.get(resource, []), observed.get(resource, [])
        if expected != there:
            at = next((i for i, (a, b) in enumerate(zip(expected, there, strict=False)) if a != b), None)
            at = min(len(expected), len(there)) if at is None else at
            one, other = (repr(rows[at]) if at < len(rows) else "no such row" for rows in (expected, there))
            yield f"kubectl get {resource} -o wide: expected {one}, observed {other}"
