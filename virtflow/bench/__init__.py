"""`virtflow bench`: what the harness adds to what the cluster needs anyway, measured on a cluster of its own.

Each figure that matters is a ratio or a difference within one run, because machines differ and are busy: the
harness beside a bare client that does the same with the same cluster, the harness' reaction beside the audit
log's own times. A goal is shown beside each figure, and never fails the run: a slow machine is no fault.
"""

from virtflow.bench.run import run_bench

__all__ = ["run_bench"]
