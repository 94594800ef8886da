"""The steps a feature can use, by theme. They read like the feature; the work is the workflow's."""

from tests.e2e.steps import access, autoscaling, faults, machines, quotas, tenants
from tests.e2e.steps.access import *  # noqa: F403  pytest-bdd finds steps by their names in the conftest
from tests.e2e.steps.autoscaling import *  # noqa: F403
from tests.e2e.steps.faults import *  # noqa: F403
from tests.e2e.steps.machines import *  # noqa: F403
from tests.e2e.steps.quotas import *  # noqa: F403
from tests.e2e.steps.tenants import *  # noqa: F403
from tests.e2e.steps.world import *  # noqa: F403

MODULES = (access, autoscaling, faults, machines, quotas, tenants)
