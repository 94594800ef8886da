"""HTTP load: Locust as a subprocess, told by files in a folder and judged by what it leaves there.

Only `locustfile.py` and `shapes.py` import locust, and only the subprocess imports those two: importing
locust patches the standard library for gevent, which an asyncio program does not survive.
"""
