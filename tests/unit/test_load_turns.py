from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from load.results import LoadPlan
from load.turns import Turns, first_requests

ROOM = 10


class TurnsMachine(RuleBasedStateMachine):
    """Against a list in the order of arrival: who is in front and fits has its turn, and nobody else."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns(ROOM)
        self.users: dict[int, int] = {}
        self.waiting: list[int] = []
        self.active: list[int] = []

    @rule(users=st.integers(1, ROOM))
    def arrive(self, users: int) -> None:
        load = len(self.users)
        self.users[load] = users
        self.waiting.append(load)
        self.turns.arrive(load, users)

    @rule(users=st.integers(ROOM + 1))
    def arrive_too_big(self, users: int) -> None:
        with pytest.raises(ValueError, match="room for 10"):
            self.turns.arrive(-1, users)

    @precondition(lambda self: self.active or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        load = data.draw(st.sampled_from(self.active + self.waiting))
        self.turns.leave(load)
        (self.active if load in self.active else self.waiting).remove(load)

    @rule()
    def admit(self) -> None:
        admitted = self.turns.admit()
        assert admitted == self.waiting[: len(admitted)]
        del self.waiting[: len(admitted)]
        self.active += admitted
        if self.waiting:
            assert self.taken() + self.users[self.waiting[0]] > ROOM

    def taken(self) -> int:
        return sum(self.users[load] for load in self.active)

    @invariant()
    def bounded(self) -> None:
        assert self.turns.taken == self.taken() <= ROOM


TestTurns = TurnsMachine.TestCase


def plan(users: int, ramp: float = 0.0, rate: float = 1.0) -> LoadPlan:
    return LoadPlan("http://127.0.0.1:9/", users, timedelta(seconds=ramp), timedelta(seconds=60), rate)


@given(st.integers(1, 700), st.floats(0, 100), st.floats(0.1, 20))
def test_each_user_has_a_moment_of_its_own_soon_after_it_arrives(users: int, ramp: float, rate: float) -> None:
    firsts = first_requests(plan(users, ramp, rate))
    spread = min(1.0, 1 / rate)
    exact_ramp = plan(users, ramp).ramp.total_seconds()
    for index, first in enumerate(firsts):
        assert 0 <= first - exact_ramp * index / users < spread + 1e-9
    moments = Counter(round(first / spread * users) % users for first in firsts)
    assert set(moments.values()) == {1}


@given(st.integers(8, 700), st.data())
def test_those_who_are_there_are_spread_while_others_have_yet_to_come(users: int, data: st.DataObject) -> None:
    there = data.draw(st.integers(4, users))
    moments = sorted(first_requests(plan(users))[:there])
    gaps = [later - earlier for earlier, later in pairwise([*moments, moments[0] + 1])]
    assert max(gaps) < 4 / there
