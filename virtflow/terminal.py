"""Progress for people: ` ✓ phase 1.2s` lines, with a live clock on a terminal and plain text elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

__all__ = ["console", "errors", "phase", "say"]

console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)
PLAIN_EVERY = 30.0
COLOURS = {"✓": "green", "!": "yellow", "✗": "red"}


def say(mark: str, text: str) -> None:
    """One line, as a phase ends with: ✓ it is well, ! it may not be, ✗ it is not."""
    console.print(f" [{COLOURS[mark]}]{mark}[/] {escape(text)}")


@contextlib.contextmanager
def phase(title: str) -> Iterator[Callable[[str], None]]:
    """Print the phase when it ends, with its mark and duration; yields a function that shows a detail meanwhile.

    On a terminal the detail is redrawn in place; elsewhere (CI) it is printed at most every 30 seconds.
    """
    start = time.monotonic()
    printed = start

    def seconds() -> str:
        return f"{time.monotonic() - start:.1f}s"

    def show(detail: str) -> None:
        nonlocal printed
        if status is not None:
            status.update(f"{title} [dim]{detail} {seconds()}[/]")
        elif time.monotonic() - printed >= PLAIN_EVERY:
            printed = time.monotonic()
            console.print(f" … {title}: {detail} ({seconds()})", markup=False)

    status = console.status(title) if console.is_terminal else None
    try:
        with status or contextlib.nullcontext():
            yield show
    except BaseException:
        console.print(f" [red]✗[/] {title} [dim]{seconds()}[/]")
        raise
    console.print(f" [green]✓[/] {title} [dim]{seconds()}[/]")
