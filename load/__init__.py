"""HTTP load: one Locust for all loads of a cluster, told by files in a folder and judged by what it leaves there.

`python -m load FOLDER` is that Locust, a program for a supervisor to keep. `runner.py` is how others give it a load.
Only `__main__.py` and `users.py` import locust, and only that program imports those two: importing locust patches
the standard library for gevent, which an asyncio program does not survive.
"""
