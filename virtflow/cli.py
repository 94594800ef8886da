"""The command line: a function for each command of `virtflow`."""

import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.table import Table

from virtflow.errors import VERBOSE, InputError, VirtflowError, explain
from virtflow.exit_codes import ExitCode
from virtflow.interrupts import Interrupts, undo
from virtflow.settings import Settings, faults_of
from virtflow.terminal import console, errors

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _be_verbose(verbose: bool) -> None:
    if verbose:
        os.environ[VERBOSE] = "1"


Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", envvar=VERBOSE, callback=_be_verbose, help="Show an error with its traceback."),
]
EXIT_CODES = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."


@app.callback(epilog=EXIT_CODES)
def virtflow(verbose: Verbose = False) -> None:
    """End-to-end tests of multi-tenant KubeVirt as durable workflows."""


@app.command()
def up(verbose: Verbose = False) -> None:
    """Bring the local cluster up: Kubernetes, KubeVirt's stand-in, the IAM gateway, Temporal, a worker."""
    from clusters.local import LocalCluster

    cluster = LocalCluster(_settings())
    started_here = not cluster.is_up()
    try:
        endpoints = cluster.up()
    except KeyboardInterrupt:
        if started_here:
            undo(f"Interrupted: taking down cluster {cluster.name}", cluster.down)
        raise
    console.print(f"\nCluster {endpoints.name} is up. KubeVirt: {endpoints.kubevirt}", markup=False)
    console.print(f"  export KUBECONFIG='{endpoints.kubeconfig}'", markup=False)
    console.print(f"  IAM gateway   {endpoints.gateway_url}")
    console.print(f"  Temporal UI   {endpoints.temporal_ui}")


@app.command()
def status(verbose: Verbose = False) -> None:
    """Show each process of the local cluster."""
    from clusters.endpoints import ClusterError
    from clusters.local import LocalCluster

    components = LocalCluster(_settings()).status()
    if not components:
        raise ClusterError("No cluster is up. Type `make up` to start one.")
    table = Table("COMPONENT", "STATE", "PID", "RESTARTS", box=None, pad_edge=False)
    for component in components:
        table.add_row(component.name, component.state, str(component.pid or ""), str(component.restarts))
    console.print(table)
    for component in components:
        if component.state == "FATAL":
            console.print(f"\n{component.name} was given up: {component.description}. Its last lines:", markup=False)
            console.print(component.last_lines, markup=False)
    if any(component.state != "RUNNING" for component in components):
        raise typer.Exit(ExitCode.INFRASTRUCTURE)


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="As `virtflow status` names it.")], verbose: Verbose = False
) -> None:
    """Print the log of one component."""
    from clusters.local import LocalCluster

    with LocalCluster(_settings()).log(component).open(errors="replace") as lines:
        for line in lines:
            sys.stdout.write(line)


@app.command()
def down(verbose: Verbose = False) -> None:
    """Stop the local cluster and remove all it left."""
    from clusters.local import LocalCluster

    cluster = LocalCluster(_settings())
    undo(f"Taking down cluster {cluster.name}", cluster.down)


@app.command(epilog=EXIT_CODES)
def e2e(
    keep: Annotated[bool, typer.Option(help="Leave the cluster up afterwards.")] = False,
    feature: Annotated[str, typer.Option(help="Only scenarios whose feature or name holds this.")] = "",
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was killed (`virtflow runs` lists them).")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run the features against the local cluster, which is brought up and taken down if it is not up."""
    if feature and resume is not None:
        raise InputError("A run that is resumed goes on with the scenarios it began with: leave --feature out.")
    from virtflow.run import resume_features, run_features

    settings = _settings()
    keep = keep or settings.keep
    # Also if it is empty: a variable that is not set must not begin a new run in silence.
    if resume is not None:
        raise typer.Exit(resume_features(settings, resume, keep=keep))
    raise typer.Exit(run_features(settings, keep=keep, only=feature))


@app.command()
def runs(verbose: Verbose = False) -> None:
    """List the runs whose reports are here, newest first, and which of them can be resumed."""
    from clusters.local import LocalCluster
    from virtflow.runs import all_runs

    settings = _settings()
    found = all_runs(Path.cwd() / "reports")
    if not found:
        console.print("There is no run in ./reports. `virtflow e2e` makes one.")
        return
    table = Table("RUN", "BEGAN", "STATE", "SCENARIOS", box=None, pad_edge=False)
    resumable = []
    for run in found:
        began = run.record.began.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        cluster = LocalCluster(settings.model_copy(update={"cluster": run.record.cluster}))
        state = run.state
        if run.was_killed:
            is_there = run.is_of(cluster.identity())
            resumable += [run.record.id] if is_there else []
            state += "" if is_there else ", cluster gone"
        table.add_row(run.record.id, began, state, f"{run.finished} of {run.record.scenarios}")
    console.print(table)
    if resumable:
        console.print(f"\n`virtflow e2e --resume {resumable[0]}` goes on with a run that was killed.", markup=False)


@app.command()
def load(
    users: Annotated[int, typer.Option(min=1, help="Users that send a request a second each.")] = 28,
    duration: Annotated[int, typer.Option(min=10, help="Seconds, of which a tenth is the ramp.")] = 120,
    verbose: Verbose = False,
) -> None:
    """Put load on a replica set of virtual machines and show how it scales. The cluster must be up."""
    import asyncio

    from clusters.local import LocalCluster
    from virtflow.apply_load import apply_load

    cluster = LocalCluster(_settings())
    asyncio.run(apply_load(cluster.endpoints(), cluster.folder / "load", users, timedelta(seconds=duration)))


@app.command()
def journey(
    tenants: Annotated[int, typer.Option(min=1, help="Tenants that go their way at the same time.")] = 1,
    load: Annotated[bool, typer.Option(help="Also a replica set for each, scaled by load.")] = True,
    users: Annotated[int, typer.Option(min=1, help="Users of each tenant's load, a request a second each.")] = 28,
    verbose: Verbose = False,
) -> None:
    """Let tenants go through the whole diagram, and show how long each phase took."""
    from virtflow.journey import run_journeys

    raise typer.Exit(run_journeys(_settings(), tenants=tenants, users=users if load else None))


@app.command(epilog=EXIT_CODES)
def gc(
    run: Annotated[
        list[str] | None, typer.Option(help="Only what this run left; may be given more than once.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it, and wait until it is gone.")] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Of another cluster than the local one."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """List what runs have left in the cluster, found by its labels, and remove it with --delete."""
    from virtflow.gc import collect_garbage

    raise typer.Exit(collect_garbage(_settings(), runs=run or [], delete=delete, kubeconfig=kubeconfig))


@app.command()
def bench(
    most: Annotated[
        int, typer.Option(min=10, help="Virtual machines at once: 10, then ten times more, up to it.")
    ] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often the comparisons are repeated.")] = 3,
    verbose: Verbose = False,
) -> None:
    """Measure what the harness adds to what a cluster needs anyway, on the cluster <name>-bench, made for it."""
    from virtflow.bench import run_bench

    raise typer.Exit(run_bench(_settings(), most=most, rounds=rounds))


@app.command(epilog=EXIT_CODES)
def torture(
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 50,
    seed: Annotated[int | None, typer.Option(help="Of another run, to have the same kills again.")] = None,
    journeys: Annotated[int, typer.Option(min=1, help="Journeys on their way at a time, one of them with load.")] = 4,
    only: Annotated[list[str] | None, typer.Option(help="Kill this program and others so named, not all.")] = None,
    verbose: Verbose = False,
) -> None:
    """Kill programs at random moments while journeys are on their way, on the cluster <name>-torture, made for it."""
    from virtflow.torture import run_torture

    raise typer.Exit(run_torture(_settings(), kills=kills, seed=seed, journeys=journeys, only=only or []))


@app.command()
def doctor(verbose: Verbose = False) -> None:
    """Say what is missing on this machine, and how to get it. Ends with 3 if no run can be."""
    from virtflow.doctor import report

    raise typer.Exit(report())


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        raise InputError(f"A setting in the environment is not valid. {'; '.join(faults_of(error))}.") from None


def except_loopback_from_proxies() -> None:
    """The Kubernetes client would ask a proxy in the environment for the local cluster, too."""
    # Some programs read the one, some the other, and Python only the second where there are both.
    variables = ("NO_PROXY", "no_proxy")
    given = ",".join(os.environ.get(variable, "") for variable in variables).replace(" ", "").split(",")
    # Beside another name, the asterisk would mean nothing.
    excepted = ["*"] if "*" in given else dict.fromkeys([*filter(None, given), "127.0.0.1", "localhost"])
    os.environ.update(dict.fromkeys(variables, ",".join(excepted)))


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    By `os._exit`, because a process that holds a Temporal client now and then crashes while the interpreter
    shuts down, after all was done, and CI would read that crash as the result.
    """
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def _run() -> int:
    interrupts = Interrupts()
    interrupts.install()
    except_loopback_from_proxies()
    try:
        app()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        errors.print(f"\n{explain(error)}", style="red", markup=False)
        code = error.exit_code if isinstance(error, VirtflowError) else ExitCode.BUG
    # Code that was interrupted sometimes raises something else.
    return ExitCode.INTERRUPTED if interrupts.asked else code
