# stoker serve --tcp examples.classic.gevent_spawn:handle --engine gevent
"""gevent's own spawn, sleep and join. What does not wait runs one after the other; what waits, in turns.

`time.sleep` would do as well: the standard library is patched.
"""

import gevent


def count(said, name, wait):
    for number in range(3):
        said.append(f"{name}{number}")
        if wait:
            gevent.sleep(0.2)


def handle(conn):
    for wait in (False, True):
        said = []
        greenlets = [gevent.spawn(count, said, name, wait) for name in "abc"]
        for greenlet in greenlets:
            greenlet.join()
        conn.send(f"{'with' if wait else 'without'} waiting: {' '.join(said)}\n".encode())
