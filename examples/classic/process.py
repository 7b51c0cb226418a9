# stoker serve --tcp examples.classic.process:handle --engine process
"""A process per connection: `handle` runs in a child of its own, so it may block and may crash."""

import os


def handle(conn):
    print(f"[{conn.peer}] served by process {os.getpid()}, a child of {os.getppid()}", flush=True)
    while data := conn.recv(1024):
        print(f"recv[{conn.peer}]: {data!r}", flush=True)
        conn.send(data)
    print(f"[{conn.peer}] has left", flush=True)
