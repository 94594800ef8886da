"""`virtflow torture`: programs of a cluster are killed while journeys are on their way, and nothing may show for it.

Not a scenario: nobody says what is to fail when. `plan` draws the kills from a seed, so that a run can be had again;
`kills` carries them out; `travel` keeps journeys on their way meanwhile; `checks` asks the audit log, the cluster and
the machine what became of it, and believes none of the programs that were killed.
"""

from virtflow.torture.run import run_torture

__all__ = ["run_torture"]
