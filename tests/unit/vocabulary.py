"""Steps for the check of features; two of them match the same texts."""

from pytest_bdd import given, step, then, when

from tests.e2e.phrases import Manifest, phrase


@given(phrase('the tenant "{name:Name}"'))
def a_tenant(name: str) -> None:
    pass


@when(phrase('"{tenant:Name}" creates "{manifest:Manifest}"'))
def creates(tenant: str, manifest: Manifest) -> None:
    pass


@then(phrase("the gateway answers {code:d}"))
def answers(code: int) -> None:
    pass


@then(phrase("it takes {time:d} seconds"))
def takes(time: int) -> None:
    pass


@step(phrase("it takes {anything}"))
def takes_anything(anything: str) -> None:
    pass
