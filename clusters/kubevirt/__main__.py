"""`python -m clusters.kubevirt COMMAND`: the stand-in's programs, one process each, as KubeVirt has them."""

import asyncio
import contextlib
import logging
import socket
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

# Plain tracebacks: the supervisor shows the last lines of what dies, and a box would fill them.
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Kubeconfig = Annotated[Path, typer.Option(help="Whose context says which cluster, and as whom.")]
Port = Annotated[int, typer.Option(help="On 127.0.0.1.")]


@cli.callback()
def programs() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@cli.command()
def api(
    port: Port,
    tls_cert: Annotated[Path, typer.Option(help="PEM, valid for 127.0.0.1.")],
    tls_key: Annotated[Path, typer.Option(help="PEM.")],
) -> None:
    """virt-api: the admission webhooks."""
    from clusters.kubevirt.api import serve

    serve(port, tls_cert, tls_key)


@cli.command()
def controller(
    kubeconfig: Kubeconfig,
    identity: Annotated[
        str | None,
        typer.Option(
            help="What the Lease calls its holder. The next process of this identity need not wait for the last "
            "one's Lease to run out: give it only where there is never more than one. Drawn if not given."
        ),
    ] = None,
) -> None:
    """virt-controller: VMs to instances, instances to pods, replica sets to instances."""
    from clusters.kubevirt.controller import run_controller
    from clusters.kubevirt.install import NAMESPACE

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run_controller(kubeconfig, NAMESPACE, identity or f"{socket.gethostname()}_{uuid.uuid4()}"))


@cli.command()
def handler(kubeconfig: Kubeconfig) -> None:
    """virt-handler: the nodes' part in an instance's life."""
    from clusters.kubevirt.handler import run_handler

    asyncio.run(run_handler(kubeconfig))


@cli.command()
def guests(
    kubeconfig: Kubeconfig,
    port: Port,
    request_cost: Annotated[int, typer.Option(help="CPU time that a request costs a guest, ms.")] = 50,
) -> None:
    """The guests' own service, which load makes busy."""
    from clusters.kubevirt.guests.process import run_guests

    asyncio.run(run_guests(kubeconfig, port, timedelta(milliseconds=request_cost)))


if __name__ == "__main__":
    cli()
