"""What there was when a step failed, kept before the scenario is undone: virtual machines, words, writes, histories.

Whoever reads a report finds the cluster gone. So each failed scenario has a folder with all that concerns it, and
nothing of its neighbours: objects and events of its namespaces, what the components said in that minute, what was
written so far, and the workflow's own history.
"""

from virtflow.bundle.parts import Failure
from virtflow.bundle.write import write_bundle

__all__ = ["Failure", "write_bundle"]
