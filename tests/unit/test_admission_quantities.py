"""Quantities are read, compared and written as Kubernetes does."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.api.quantities import BINARY, DECIMAL, Quantity


@pytest.mark.parametrize(
    ("text", "amount", "canonical"),
    [
        ("1Gi", 2**30, "1Gi"),
        ("1024Mi", 2**30, "1Gi"),
        ("900Ti", 900 * 2**40, "900Ti"),
        ("-1Gi", -(2**30), "-1Gi"),
        ("512", 512, "512"),
        (512, 512, "512"),
        ("1500m", "1.5", "1500m"),
        ("1.5", "1.5", "1500m"),
        ("1000", 1000, "1k"),
        ("0.5Gi", 2**29, "512Mi"),
        ("1000Ki", 1_024_000, "1000Ki"),
        ("1e3", 1000, "1e3"),
        ("1E3", 1000, "1e3"),
        ("1E", 10**18, "1E"),
        (".5", "0.5", "500m"),
        ("0Mi", 0, "0"),
        ("0.1n", "1e-9", "1n"),
        ("1e999999999999", 2**63 - 1, None),
        ("1e-999999999999", "1e-9", None),
    ],
)
def test_known_quantities(text: str | int, amount: str | int, canonical: str | None) -> None:
    quantity = Quantity.parse(text)
    assert quantity.amount == Decimal(amount)
    if canonical is not None:
        assert str(quantity) == canonical


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must match the regular expression"),
        ("one gigabyte", "must match the regular expression"),
        ("1 Gi", "must match the regular expression"),
        ("1Zi", "must match the regular expression"),
        ("1.2.3", "must match the regular expression"),
        ("Gi", "numeric part"),
        ("-", "numeric part"),
        ("1im", "suffix"),
        ("1mi", "suffix"),
        ("1e", "suffix"),
    ],
)
def test_what_is_no_quantity(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quantity.parse(text)


QUANTITIES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    st.decimals(0, 10**6, places=3) | st.integers(0, 10**6),
    st.sampled_from([*BINARY, *DECIMAL, "e2", "E-3"]),
)


@given(QUANTITIES)
def test_the_canonical_form_says_the_same_and_is_canonical(text: str) -> None:
    quantity = Quantity.parse(text)
    again = Quantity.parse(str(quantity))
    assert again == quantity
    assert str(again) == str(quantity)


@given(st.text())
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except ValueError:
        return
    assert abs(quantity.amount) <= 2**63


@given(QUANTITIES, QUANTITIES)
def test_quantities_are_ordered_by_amount(left: str, right: str) -> None:
    first, second = Quantity.parse(left), Quantity.parse(right)
    assert (first < second) == (first.amount < second.amount)
    assert (first == second) == (first.amount == second.amount)
