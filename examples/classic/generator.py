# stoker serve --tcp examples.classic.generator:handle --engine generator
"""Two tasks, A and B, as generators: each `yield` gives way to the other and to all connections."""

import stoker


def task(name, conn):
    for _ in range(3):
        conn.post(f"--- {name} ---\n".encode())
        yield stoker.sleep(0.5)


def handle(conn):
    a = stoker.spawn(task, "A", conn)
    b = stoker.spawn(task, "B", conn)
    yield stoker.join(a)
    yield stoker.join(b)
