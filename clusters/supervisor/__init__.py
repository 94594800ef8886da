"""One supervisor for every process of a cluster, upstream programs and our own alike: supervisord in a folder.

It starts them, restarts what dies, and gives up what keeps dying (`daemon`). An event listener of it
(`watch`) counts the deaths, ends the slower crash loops that supervisord takes for healthy lives, and brings
supervisord itself back: so that whichever process is killed, another one notices.
"""

from clusters.supervisor.daemon import LONGEST_SOCKET, Program, ProgramStatus, Supervisor, last_lines

__all__ = ["LONGEST_SOCKET", "Program", "ProgramStatus", "Supervisor", "last_lines"]
