"""What was sent and what came back, in figures, for the end of a run."""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Figures"]


@dataclass
class Figures:
    """Of all requests so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    revoked: float = 0.0
    """Seconds from a token's end until it was refused, at most."""
    events: int = 0
    """Of the audit log, that were examined."""
    memory: tuple[int, int] = (0, 0)
    """The gateway's, in bytes, before and after."""
    began: float = field(default_factory=perf_counter)

    def count(self, kind: str, code: int, seconds: float) -> None:
        self.kinds[kind] += 1
        self.codes[code] += 1
        self.slowest = max(self.slowest, (seconds, kind))

    @property
    def requests(self) -> int:
        return self.kinds.total()

    def table(self) -> list[str]:
        seconds = perf_counter() - self.began
        width = max(map(len, self.kinds), default=0)
        codes = ", ".join(f"{count} x {code}" for code, count in sorted(self.codes.items()))
        before, after = (size / 2**20 for size in self.memory)
        return [
            *(f"{kind:<{width}}  {count:>6}" for kind, count in sorted(self.kinds.items())),
            f"{'requests':<{width}}  {self.requests:>6}  in {seconds:.0f} s",
            f"answers: {codes}",
            f"slowest: {self.slowest[0] * 1000:.0f} ms ({self.slowest[1]})",
            f"a revoked token was refused after {self.revoked:.1f} s at most",
            f"audit events examined: {self.events}",
            f"the gateway's memory: {before:.0f} MiB before, {after:.0f} MiB after",
        ]
