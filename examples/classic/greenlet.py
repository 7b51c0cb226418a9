# stoker serve --tcp examples.classic.greenlet:handle --engine greenlet
"""Two tasks, A and B, as greenlets: plain functions, whose `sleep` switches to the hub."""

import stoker


def task(name, conn):
    for _ in range(3):
        conn.post(f"--- {name} ---\n".encode())
        stoker.sleep(0.5)


def handle(conn):
    a = stoker.spawn(task, "A", conn)
    b = stoker.spawn(task, "B", conn)
    stoker.join(a)
    stoker.join(b)
