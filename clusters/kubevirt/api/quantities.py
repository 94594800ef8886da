"""Kubernetes quantities ("1Gi", "500m", "1e3"): reading, comparing, and writing in canonical form.

The webhooks answer with a quantity as Kubernetes itself would print it ("1024Mi" becomes "1Gi"), and refuse a
bad one in Kubernetes' words. The official client's parser knows neither, hence this one.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal, localcontext
from functools import lru_cache, total_ordering
from typing import Self

__all__ = ["Quantity"]

BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
LARGEST = Decimal(2**63 - 1)
SMALLEST = Decimal("1e-9")

SHAPE = re.compile(r"([+-]?)([0-9]*\.?[0-9]*)([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)", re.ASCII)
WRONG_FORMAT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
WRONG_NUMBER = "unable to parse numeric part of quantity"
WRONG_SUFFIX = "unable to parse quantity's suffix"


@total_ordering
@dataclass(frozen=True, eq=False)
class Quantity:
    """An amount and the family of suffixes it is written with: "Ki" (binary), "k" (decimal) or "e" (exponent)."""

    amount: Decimal
    family: str

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str | float) -> Self:
        """Raises `ValueError` with Kubernetes' own message. Rounds away from 0 at nano, caps at 2**63 - 1."""
        match = SHAPE.fullmatch(str(text))
        if match is None or not str(text):
            raise ValueError(WRONG_FORMAT)
        sign, number, suffix = match.groups()
        factor, family = factor_of(suffix)
        if number in ("", "."):
            raise ValueError(WRONG_NUMBER)
        with localcontext(prec=len(number) + 60):
            amount = min(Decimal(number) * factor, LARGEST)
            amount = amount.quantize(SMALLEST, rounding=ROUND_UP) if amount else Decimal(0)
        return cls(-amount if sign == "-" else amount, family)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.amount == other.amount

    def __lt__(self, other: "Quantity") -> bool:
        return self.amount < other.amount

    def __hash__(self) -> int:
        return hash(self.amount)

    def __mul__(self, times: int) -> "Quantity":
        return Quantity(min(self.amount * times, LARGEST), self.family)

    def __str__(self) -> str:
        """The canonical form: the largest suffix of the family that leaves a whole number."""
        if not self.amount:
            return "0"
        if self.family == "Ki" and abs(self.amount) >= 1024 and self.amount == self.amount.to_integral_value():
            return whole(int(self.amount), 1024, ["", *BINARY])
        suffixes = list(DECIMAL)
        if self.family == "e":
            suffixes = [f"e{power * 3}" if power else "" for power in DECIMAL.values()]
        return whole(int(self.amount.scaleb(9)), 1000, suffixes)


def factor_of(suffix: str) -> tuple[Decimal, str]:
    if suffix in BINARY:
        return Decimal(1024) ** BINARY[suffix], "Ki"
    if suffix in DECIMAL:
        return Decimal(1000) ** DECIMAL[suffix], "k"
    exponent = EXPONENT.fullmatch(suffix)
    if exponent is None:
        raise ValueError(WRONG_SUFFIX)
    # Beyond this every amount is capped or rounded to the least one anyway, and Decimal would overflow.
    power = max(-1000, min(int(exponent[1][:12]), 1000))
    return Decimal(10) ** power, "e"


def whole(number: int, base: int, suffixes: list[str]) -> str:
    step = 0
    while number % base == 0 and step < len(suffixes) - 1:
        number //= base
        step += 1
    return f"{number}{suffixes[step]}"
