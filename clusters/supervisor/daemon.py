"""supervisord in one folder, and what its callers need of it."""

import configparser
import contextlib
import http.client
import io
import os
import shlex
import subprocess
import sys
import time
import xml.parsers.expat
import xmlrpc.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from clusters.endpoints import ClusterError
from clusters.supervisor import processes
from clusters.supervisor.record import Record
from virtflow.files import write_whole

__all__ = ["LONGEST_SOCKET", "SUPERVISORD", "Program", "ProgramStatus", "Supervisor", "last_lines"]

START_LIMIT = timedelta(seconds=30)
PAUSE = 0.05
WATCHED_STATES = ("STARTING", "EXITED", "BACKOFF", "STOPPED", "FATAL")
# sockaddr_un holds 107 bytes and supervisord adds ".<pid>" while it binds.
LONGEST_SOCKET = 98
SUPERVISORD, WATCH = "supervisord", "crash-watch"
# In the environment of supervisord and of all that descends from it: pids are reused and a killed parent's
# children are nobody's, but this says whose they are.
MARK = "VIRTFLOW_SUPERVISED_IN"

# Killed before it answers, in the middle of an answer, or between an answer's head and its body.
NO_ANSWER = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, xml.parsers.expat.ExpatError)

# Go's programs here are small and make much garbage: collecting it four times as seldom is worth the memory.
DEFAULT_ENVIRONMENT = {"GOGC": "400", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Program:
    """A process to keep: its name and its command line."""

    name: str
    command: Sequence[str | Path]
    stop_limit: timedelta = timedelta(seconds=10)
    """From SIGTERM to SIGKILL where it is stopped by itself. `Supervisor.stop` does not wait for anything."""


@dataclass(frozen=True)
class ProgramStatus:
    name: str
    state: str
    """supervisord's word: RUNNING, STARTING, BACKOFF, FATAL, EXITED, STOPPED. FATAL is what was given up."""
    pid: int | None
    description: str
    restarts: int
    """How often it died and was started again."""


class Supervisor:
    """supervisord in one folder: supervisord.conf, its socket, its pid, and logs/<program>.log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "supervisor.sock"
        self._record = Record(folder / "restarts.json")

    def log(self, program: str) -> Path:
        return (self._folder if program == SUPERVISORD else self._folder / "logs") / f"{program}.log"

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
        text = io.StringIO()
        self._config(programs).write(text)
        write_whole(self._config_file, text.getvalue())
        if self.pid() is None:
            # What a supervisor that died may have left behind holds ports and files.
            self.stop()
            self._launch()
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
        record = self._record.read()
        infos = self._infos()
        if infos is None:
            config = configparser.RawConfigParser()
            config.read(self._config_file)
            names = [name.removeprefix("program:") for name in config.sections() if name.startswith("program:")]
            return [
                ProgramStatus(name, "STOPPED", None, "supervisord does not run", record[name].restarts)
                for name in names
            ]
        states = []
        for info in infos:
            name, state, description = info["name"], info["statename"], info["description"]
            if record[name].given_up and state == "STOPPED":
                state, description = "FATAL", record[name].given_up
            states.append(ProgramStatus(name, state, info["pid"] or None, description, record[name].restarts))
        return states

    def own_state(self) -> ProgramStatus:
        """supervisord's own, which the watch starts again."""
        pid = self.pid()
        restarts = self._record.read()[SUPERVISORD].restarts
        return ProgramStatus(SUPERVISORD, "RUNNING" if pid else "STOPPED", pid, "", restarts)

    def restart(self, program: str) -> None:
        self.stop_program(program)
        self.start(program)

    def stop_program(self, program: str) -> None:
        """Stop one program, whatever it is about to do, and leave it so until it is started."""
        while self._state(program) not in ("STOPPED", "FATAL"):
            try:
                with self._rpc() as rpc:
                    rpc.stopProcess(program)
            except xmlrpc.client.Fault as fault:
                # Between two lives it cannot be stopped: a moment later it can.
                if fault.faultCode != Faults.NOT_RUNNING:
                    raise ClusterError(f"{program} cannot be stopped: {fault.faultString}.") from None
                time.sleep(PAUSE)

    def kill_program(self, program: str) -> None:
        """As `stop_program`, but it gets no time to take leave of anybody: SIGTERM, and SIGKILL at once after it."""
        # Where it is between two lives neither is possible, and stop_program waits for the moment.
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:
            rpc.stopProcess(program, False)
            rpc.signalProcess(program, "KILL")
        self.stop_program(program)

    def check(self, *programs: str) -> list[str]:
        """Which of these programs, or of all, do not run yet. Raises ClusterError with the last lines of one that
        keeps dying."""
        states = [state for state in self.states() if not programs or state.name in programs]
        for state in states:
            # EXITED is the moment between a death and the next life.
            if state.state == "FATAL":
                raise ClusterError(
                    f"{state.name} does not stay up ({state.state}: {state.description}). Its last lines:\n"
                    f"{last_lines(self.log(state.name))}\nType `make down`, mend the cause, and type `make up` again."
                )
        return [state.name for state in states if state.state != "RUNNING"]

    def stop(self) -> None:
        """End supervisord and all that came of it, and return when they are gone.

        At once: what a program would still save goes with the folder. Raises ClusterError if one cannot be killed.
        """
        # More than once, because the watch may just have brought back what was killed first.
        while family := processes.marked(MARK, str(self._folder)):
            if left := processes.kill(family):
                raise ClusterError(
                    f"{len(left)} processes of {self._folder} do not end, though they were killed: "
                    f"{', '.join(str(process.pid) for process in left)}. `ps` shows what they wait for."
                )

    def revive(self) -> None:
        """Start supervisord and every program, after it has died and left its children to nobody.

        They hold ports and files, so they are ended first: all but the caller, who is one of them.
        """
        family = processes.marked(MARK, str(self._folder))
        processes.kill(process for process in family if process.pid != os.getpid())
        self._launch()
        self.start()

    def pid(self) -> int | None:
        try:
            pid = int((self._folder / "supervisord.pid").read_text())
            command = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        # A pid that survived in a stale file may be a stranger's by now.
        return pid if str(self._config_file) in command else None

    @property
    def _config_file(self) -> Path:
        return self._folder / "supervisord.conf"

    def _launch(self) -> None:
        # -m needs no script with a #! line, which a folder with a space in its name would break.
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config_file)]
        result = subprocess.run(
            command,
            env={**DEFAULT_ENVIRONMENT, **os.environ, MARK: str(self._folder)},
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
        )
        deadline = time.monotonic() + START_LIMIT.total_seconds()
        while result.returncode == 0 and time.monotonic() < deadline:
            try:
                with self._rpc() as rpc:
                    rpc.getState()
            except ClusterError:
                time.sleep(PAUSE)
            else:
                return
        raise ClusterError(
            f"supervisord did not start: {(result.stderr or result.stdout).strip() or 'it gave no reason'}. "
            f"Its log is {self._folder / 'supervisord.log'}."
        )

    def _infos(self) -> list[dict[str, Any]] | None:
        """What supervisord says of its programs; None if there is no supervisord to say it."""
        if self.pid() is None:
            return None
        with contextlib.suppress(ClusterError), self._rpc() as rpc:
            infos: list[dict[str, Any]] = rpc.getAllProcessInfo()
            return infos
        return None

    def _state(self, program: str) -> str:
        try:
            with self._rpc() as rpc:
                return str(rpc.getProcessInfo(program)["statename"])
        except xmlrpc.client.Fault as fault:
            raise ClusterError(f"supervisord in {self._folder} knows no {program}: {fault.faultString}.") from None

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
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
                yield proxy.supervisor
        except NO_ANSWER as error:
            raise ClusterError(
                f"supervisord in {self._folder} gave no answer: {error!r}. If it was killed, it is back within "
                f"seconds."
            ) from error

    def _config(self, programs: Sequence[Program]) -> configparser.RawConfigParser:
        config = configparser.RawConfigParser()
        config["unix_http_server"] = {"file": _quoted(self._socket), "chmod": "0700"}
        config["supervisord"] = {
            "logfile": _quoted(self._folder / "supervisord.log"),
            "pidfile": _quoted(self._folder / "supervisord.pid"),
            "childlogdir": _quoted(self._folder / "logs"),
            **({"user": "root"} if os.geteuid() == 0 else {}),
        }
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        config[f"eventlistener:{WATCH}"] = {
            "command": _command([sys.executable, "-m", "clusters.supervisor.watch", self._folder]),
            "directory": _quoted(self._folder),
            "events": ",".join(f"PROCESS_STATE_{state}" for state in WATCHED_STATES),
            # While it starts, everything else may start and die: of what does not fit, it would never hear.
            "buffer_size": "1000",
            "stderr_logfile": _quoted(_quoted(self.log(WATCH))),
            "autorestart": "true",
        }
        for program in programs:
            config[f"program:{program.name}"] = {
                "command": _command(program.command),
                "directory": _quoted(self._folder),
                # This one it expands twice.
                "stdout_logfile": _quoted(_quoted(self.log(program.name))),
                "redirect_stderr": "true",
                "autostart": "false",
                "autorestart": "true",
                # Longer than Python takes to import what may be broken: what dies later was running.
                "startsecs": "3",
                "startretries": "5",
                "stopwaitsecs": str(int(program.stop_limit.total_seconds())),
                "stopasgroup": "true",
                "killasgroup": "true",
            }
        return config


def last_lines(log: Path) -> str:
    """The end of a log, indented, for a message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-15:]) or "  (it wrote nothing)"


def _command(parts: Sequence[str | Path]) -> str:
    return _quoted(shlex.join(str(part) for part in parts))


def _quoted(text: object) -> str:
    # supervisord expands %(…)s in every value.
    return str(text).replace("%", "%%")
