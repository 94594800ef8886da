"""The processes beside Kubernetes, kept alive by supervisord.

It starts them, restarts what dies (with a growing delay; after too many quick deaths it gives up and the
process's last lines are shown), keeps their logs, and takes them all along when it ends.
"""

import configparser
import contextlib
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from clusters.endpoints import ClusterError
from clusters.local import processes

__all__ = ["Program", "ProgramStatus", "Supervisor"]

START_LIMIT = timedelta(seconds=30)
STOP_LIMIT = timedelta(seconds=10)
# sockaddr_un holds 107 bytes and supervisord adds ".<pid>" while it binds.
LONGEST_SOCKET = 98


@dataclass(frozen=True)
class Program:
    """A process to keep: its name and its command line."""

    name: str
    command: Sequence[str | Path]


@dataclass(frozen=True)
class ProgramStatus:
    name: str
    state: str
    """supervisord's word: RUNNING, STARTING, BACKOFF, FATAL, EXITED, STOPPED."""
    pid: int | None
    description: str


class Supervisor:
    """supervisord in one folder: supervisord.conf, its socket, its pid, and logs/<program>.log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "supervisor.sock"

    def log(self, program: str) -> Path:
        return self._folder / "logs" / f"{program}.log"

    def configure(self, programs: Sequence[Program]) -> None:
        """Make supervisord know these programs, and start it if it is not running, but none of them.

        What runs already goes on, unless its command line is another now: it is started anew.
        """
        (self._folder / "logs").mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET:
            raise ClusterError(
                f"The path of the supervisor's socket, {self._socket}, is longer than Unix allows. Set "
                f"VIRTFLOW_STATE_HOME to a shorter folder and type the command again."
            )
        config = self._folder / "supervisord.conf"
        with config.open("w") as file:
            self._config(programs).write(file)
        if self.pid() is None:
            self._launch(config)
        else:
            self._reload()

    def start(self, *programs: str) -> None:
        """Start these programs, or all, unless they run already. Returns before they are ready."""
        for state in self.states():
            if (not programs or state.name in programs) and state.state not in ("RUNNING", "STARTING", "BACKOFF"):
                try:
                    with self._rpc() as rpc:
                        rpc.startProcess(state.name, False)
                except xmlrpc.client.Fault as fault:
                    # It may have been started again by itself since.
                    if fault.faultCode != Faults.ALREADY_STARTED:
                        raise ClusterError(
                            f"{state.name} cannot be started: {fault.faultString}. Its log is "
                            f"{self.log(state.name)}. Type `make down`, mend the cause, and type `make up` again."
                        ) from None

    def states(self) -> list[ProgramStatus]:
        """Of all programs it was told to keep. Without supervisord none of them has anybody to keep it."""
        if self.pid() is None:
            config = configparser.RawConfigParser()
            config.read(self._folder / "supervisord.conf")
            names = [name.removeprefix("program:") for name in config.sections() if name.startswith("program:")]
            return [ProgramStatus(name, "STOPPED", None, "supervisord does not run") for name in names]
        with self._rpc() as rpc:
            infos: Any = rpc.getAllProcessInfo()
        return [
            ProgramStatus(info["name"], info["statename"], info["pid"] or None, info["description"]) for info in infos
        ]

    def restart(self, program: str) -> None:
        # A program that is not running cannot be stopped: then there is only a start to do.
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:
            rpc.stopProcess(program)
        self.start(program)

    def check(self) -> list[str]:
        """The programs that do not run yet. Raises ClusterError with the last lines of one that keeps dying."""
        states = self.states()
        for state in states:
            if state.state in ("FATAL", "EXITED"):
                raise ClusterError(
                    f"{state.name} does not stay up ({state.state}: {state.description}). Its last lines:\n"
                    f"{self._last_lines(state.name)}\nType `make down`, mend the cause, and type `make up` again."
                )
        return [state.name for state in states if state.state != "RUNNING"]

    def stop(self) -> None:
        """End supervisord and all it started, and return when they are gone."""
        supervisord = self._process()
        if supervisord is None:
            return
        family = supervisord.children(recursive=True)
        # From here on it starts nothing again. It would end one program after the other, so that is done here.
        supervisord.terminate()
        processes.end(family, STOP_LIMIT)
        processes.kill([supervisord])

    def pid(self) -> int | None:
        try:
            pid = int((self._folder / "supervisord.pid").read_text())
            command = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        # A pid that survived in a stale file may be a stranger's by now.
        return pid if str(self._folder / "supervisord.conf") in command else None

    def _process(self) -> psutil.Process | None:
        """supervisord, also one whose start was interrupted before it had written its pid."""
        its_own = {"supervisor.supervisord", str(self._folder / "supervisord.conf")}
        found = (each for each in psutil.process_iter(["cmdline"]) if its_own <= set(each.info["cmdline"] or ()))
        return next(found, None)

    def _launch(self, config: Path) -> None:
        # -m needs no script with a #! line, which a folder with a space in its name would break.
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder)
        deadline = time.monotonic() + START_LIMIT.total_seconds()
        while result.returncode == 0 and time.monotonic() < deadline:
            try:
                with self._rpc() as rpc:
                    rpc.getState()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise ClusterError(
            f"supervisord did not start: {(result.stderr or result.stdout).strip() or 'it gave no reason'}. "
            f"Its log is {self._folder / 'supervisord.log'}."
        )

    def _reload(self) -> None:
        with self._rpc() as rpc:
            [[added, changed, removed]] = rpc.reloadConfig()
            for program in changed + removed:
                rpc.stopProcessGroup(program)
                rpc.removeProcessGroup(program)
            for program in added + changed:
                rpc.addProcessGroup(program)

    @contextlib.contextmanager
    def _rpc(self) -> Iterator[Any]:
        transport: Any = SupervisorTransport(serverurl=f"unix://{self._socket}")
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            yield proxy.supervisor

    def _last_lines(self, program: str) -> str:
        log = self.log(program)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-15:]) or "  (it wrote nothing)"

    def _config(self, programs: Sequence[Program]) -> configparser.RawConfigParser:
        def quoted(text: object) -> str:
            # supervisord expands %(…)s in every value.
            return str(text).replace("%", "%%")

        config = configparser.RawConfigParser()
        config["unix_http_server"] = {"file": quoted(self._socket), "chmod": "0700"}
        config["supervisord"] = {
            "logfile": quoted(self._folder / "supervisord.log"),
            "pidfile": quoted(self._folder / "supervisord.pid"),
            "childlogdir": quoted(self._folder / "logs"),
            **({"user": "root"} if os.geteuid() == 0 else {}),
        }
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        for program in programs:
            config[f"program:{program.name}"] = {
                "command": quoted(shlex.join(str(part) for part in program.command)),
                "environment": 'PYTHONUNBUFFERED="1"',
                "directory": quoted(self._folder),
                # This one it expands twice.
                "stdout_logfile": quoted(quoted(self.log(program.name))),
                "redirect_stderr": "true",
                "autostart": "false",
                "autorestart": "true",
                # Longer than Python takes to import what may be broken: what dies later was running.
                "startsecs": "3",
                "startretries": "5",
                "stopwaitsecs": "10",
                "stopasgroup": "true",
                "killasgroup": "true",
            }
        return config
