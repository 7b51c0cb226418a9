# stoker serve --tcp examples.classic.thread:handle --engine thread
"""A thread per connection: `handle` may block, and shares its memory with the others."""

import threading


def handle(conn):
    print(f"[{conn.peer}] served by thread {threading.current_thread().name}", flush=True)
    while data := conn.recv(1024):
        print(f"recv[{conn.peer}]: {data!r}", flush=True)
        conn.send(data)
    print(f"[{conn.peer}] has left", flush=True)
