"""Tenants for tests of the matrix, and what the two doors say of a request when they are right."""

from virtflow.access.audit import Decision, Observed
from virtflow.access.matrix import Cell, Target, cells, expected
from virtflow.access.tables import Answer
from virtflow.kube import Object
from virtflow.kube.resources import VMS
from workflows.access_models import Door, Outcome
from workflows.tenant_models import PolicyRule, Tenant

A = Tenant("tenant-a", "tenant-a-1", ["tenant-a-user"])
B = Tenant("tenant-b", "tenant-b-1", ["tenant-b-user"], [PolicyRule(["*"], ["*"], ["*"])])


def cell(verb: str = "get", place: str = A.namespace, target: Target | None = None, actor: Tenant = A) -> Cell:
    return Cell(actor, actor.user, target or Target(VMS), verb, place)


def denial(of: Cell) -> Object:
    """The kube-apiserver's refusal of it."""
    where = f'in the namespace "{of.place}"' if of.place else "at the cluster scope"
    group = of.target.resource.group
    return {
        "message": f'{of.target} is forbidden: User "{of.user}" cannot {of.verb} resource "{of.target}" '
        f'in API group "{group}" {where}'
    }


def right_answers(*actors: Tenant) -> list[Answer]:
    """To everything, as the roles say."""
    everything = [each for actor in actors for each in cells(actor, actors)]
    return [
        Answer(Observed(each, door, f"probe-{number:05}-{door[0]}", expected(each, door)), 200, "")
        for number, each in enumerate(everything)
        for door in Door
    ]


def decision(observed: Observed) -> Decision:
    """What the kube-apiserver notes of it."""
    asked, allowed = observed.cell, observed.outcome is Outcome.ALLOWED
    return Decision(
        observed.request_id,
        asked.user,
        asked.verb,
        asked.target.resource.group,
        str(asked.target),
        asked.place,
        200 if allowed else 403,
        allowed,
    )


def noted(answers: list[Answer]) -> list[Decision]:
    """Of all that reaches the kube-apiserver."""
    return [decision(answer.observed) for answer in answers if answer.observed.is_noted]
