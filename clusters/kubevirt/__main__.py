"""`python -m clusters.kubevirt COMMAND`: the stand-in's programs, one process each, as KubeVirt has them."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

# Plain tracebacks: the supervisor shows the last lines of what dies, and a box would fill them.
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Kubeconfig = Annotated[Path, typer.Option(help="Whose context says which cluster, and as whom.")]
Port = Annotated[int, typer.Option(help="On 127.0.0.1.")]
Cert = Annotated[Path, typer.Option(help="PEM, valid for 127.0.0.1.")]
File = Annotated[Path, typer.Option(help="PEM.")]


@cli.callback()
def programs() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@cli.command()
def api(
    kubeconfig: Kubeconfig,
    port: Port,
    tls_cert: Cert,
    tls_key: File,
    front_proxy_ca: Annotated[Path, typer.Option(help="PEM: of the kube-apiserver's aggregator.")],
    front_proxy_name: Annotated[list[str], typer.Option(help="What its certificate's common name may be.")],
    handler_url: Annotated[str, typer.Option(help="Where virt-handler listens.")],
    handler_ca: File,
    handler_cert: File,
    handler_key: File,
) -> None:
    """virt-api: the admission webhooks and subresources.kubevirt.io."""
    from clusters.kubevirt.api.process import serve
    from clusters.kubevirt.api.subresources import HandlerAccess

    handler = HandlerAccess(handler_url, handler_ca, handler_cert, handler_key)
    serve(kubeconfig, port, tls_cert, tls_key, front_proxy_ca, front_proxy_name, handler)


@cli.command()
def controller(kubeconfig: Kubeconfig) -> None:
    """virt-controller: VMs to instances, instances to pods, replica sets to instances."""
    from clusters.kubevirt.controller import run_controller

    asyncio.run(run_controller(kubeconfig))


@cli.command()
def handler(
    kubeconfig: Kubeconfig,
    port: Port,
    tls_cert: Cert,
    tls_key: File,
    client_ca: Annotated[Path, typer.Option(help="PEM: of virt-api as a client.")],
) -> None:
    """virt-handler: the nodes' part in an instance's life."""
    from clusters.kubevirt.handler import run_handler

    asyncio.run(run_handler(kubeconfig, port, tls_cert, tls_key, client_ca))


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
