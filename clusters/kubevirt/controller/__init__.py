"""The stand-in for KubeVirt's virt-controller: VirtualMachines, their instances, replica sets and pods.

`vm`, `vmi`, `vmirs` and `membership` hold the judgement, as pure functions from what is there to what has to be
written; `process` holds the caches and queues around them, and `lease` says when they may be used.
"""

from clusters.kubevirt.controller.process import run_controller

__all__ = ["run_controller"]
