"""`python -m load FOLDER`: the one Locust of a cluster, which carries out the loads that are put into the folder."""

import fcntl
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

# Plain tracebacks: the supervisor shows the last lines of what dies, and a box would fill them.
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

MAX_USERS = 1000
"""Of a request a second each, which takes a third of a core; the cluster and its guests need the rest of two."""


@cli.command()
def run(
    folder: Annotated[Path, typer.Argument(help="Of the loads: a folder in it for each.")],
    max_users: Annotated[int, typer.Option(min=1, help="Of all loads together; more have to wait.")] = MAX_USERS,
) -> None:
    """Run until killed. Any error ends the process: started again, it begins what is unfinished afresh."""
    # Patches the standard library, so late, and before all that makes connections.
    import gevent
    from locust.env import Environment

    from load.files import heartbeat_of
    from load.loads import Loads
    from load.run import TICK
    from load.users import Client, count_request

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It warns of users that are spawned fast, which these are only once.
    logging.getLogger("locust").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    heartbeat = heartbeat_of(folder)
    with heartbeat.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Process {heartbeat.read_text()} carries out the loads in {folder} already.") from None
        heartbeat.write_text(str(os.getpid()))

        environment = Environment(user_classes=[Client])
        environment.events.request.add_listener(count_request)
        environment.create_local_runner().start(max_users, spawn_rate=max_users)
        loads = Loads(folder, max_users, lambda run, index: Client.wanted.put((run, index)))
        while True:
            loads.tick()
            os.utime(heartbeat)
            gevent.sleep(TICK)


if __name__ == "__main__":
    cli()
