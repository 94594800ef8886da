"""`virtflow`, with one more command: as short as one can be that holds a Temporal client. For test_exits.py."""

import asyncio

import typer

from clusters.local import LocalCluster
from virtflow.cli import app, main
from virtflow.settings import Settings
from virtflow.temporal import connect


async def ask() -> object:
    temporal = await connect(LocalCluster(Settings()).endpoints())
    await temporal.count_workflows()
    return temporal


@app.command()
def ends_with(code: int) -> None:
    """Ask Temporal something, and end with this code while the client is still there."""
    held = asyncio.run(ask())
    raise typer.Exit(code if held else -1)


if __name__ == "__main__":
    main()
