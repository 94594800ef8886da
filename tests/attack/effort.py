"""How many examples hypothesis tries: the same at each `make test`, and ten times as many others at `make attack`.

The profile `attack` (`--hypothesis-profile=attack`) has a thousand examples where the default has a hundred. What it
finds it prints as a blob, with which the very example can be had again.
"""

import hypothesis

__all__ = ["effort"]

USUAL = 100


def effort(examples: int) -> hypothesis.settings:
    """So many of them, and more if there is time."""
    times = hypothesis.settings().max_examples // USUAL
    # Not the phase that explains a failure: it takes hundreds of requests more.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink)
    return hypothesis.settings(max_examples=examples * times, derandomize=times == 1, phases=phases)
