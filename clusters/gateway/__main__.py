"""`python -m clusters.gateway`: the gateway as a process, on 127.0.0.1 with TLS."""

import resource
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from clusters.gateway.access_log import AccessLog
from clusters.gateway.app import create_app
from clusters.gateway.server import server_of
from virtflow.kube import KubeClient

ExistingFile = Annotated[Path, typer.Option(exists=True, dir_okay=False)]


def main(
    kubeconfig: ExistingFile,
    port: Annotated[int, typer.Option(min=1, max=65535)],
    tls_cert: ExistingFile,
    tls_key: ExistingFile,
    access_log: Annotated[Path, typer.Option(dir_okay=False)],
) -> None:
    """Serve the IAM Gateway until SIGTERM. The kubeconfig is its own service account's."""
    # A shell's 1024 are fewer than the connections there may be.
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    uvloop.run(serve(kubeconfig, port, tls_cert, tls_key, access_log))


async def serve(kubeconfig: Path, port: int, tls_cert: Path, tls_key: Path, access_log: Path) -> None:
    with closing(AccessLog(access_log)) as log:
        async with await KubeClient.connect(kubeconfig, agent="iam-gateway") as kube:
            await server_of(create_app(kube, log), port, tls_cert, tls_key).serve()


if __name__ == "__main__":
    # A plain traceback: the supervisor shows the last lines of what dies, and a box would fill them.
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    cli.command()(main)
    cli()
