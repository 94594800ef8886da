"""Which program is killed when: all of it drawn from a seed.

The moment is no time of day but a pause after the kill before, or after the cluster has recovered from it. What the
journeys are doing then differs from machine to machine; the same seed kills the same programs in the same order.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from virtflow.torture.runner import RUNNER

__all__ = ["ALONE", "Kill", "plan_kills"]

KEEPERS = ("supervisord", "crash-watch")
"""Each brings the other back. Killed at once, nobody is left to bring anything back but `virtflow up`."""
ALONE = (*KEEPERS, RUNNER)
"""Not within moments of another kill. A run that begins or is resumed needs a cluster that is up."""

LONGEST_PAUSE = timedelta(seconds=4)
AT_ONCE = 0.3
"""Of the kills, the part that does not wait for the cluster to recover from the one before."""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL to come."""

    number: int
    """From 1 on."""
    victim: str
    """As `virtflow status` names it."""
    recovered: bool
    """Whether the cluster is first given the time to recover from the kill before."""
    pause: timedelta
    """Then."""


def plan_kills(seed: int, count: int, victims: Sequence[str]) -> list[Kill]:
    """So many kills, in order; each victim has its turn before one has its second.

    So all kinds of them are in a short plan, too, and no program dies as often as the supervisor takes for a loop.
    """
    chance = random.Random(seed)
    kills: list[Kill] = []
    for number, victim in zip(range(1, count + 1), _dealt(chance, victims), strict=False):
        is_alone = victim in ALONE or (kills != [] and kills[-1].victim in ALONE)
        recovered = chance.random() >= AT_ONCE or is_alone
        kills.append(Kill(number, victim, recovered, chance.random() * LONGEST_PAUSE))
    return kills


def _dealt(chance: random.Random, victims: Sequence[str]) -> Iterator[str]:
    last = ""
    while True:
        deck = sorted(victims)
        chance.shuffle(deck)
        if deck[0] == last:
            deck.append(deck.pop(0))
        yield from deck
        last = deck[-1]
