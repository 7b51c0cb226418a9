# stoker serve --tcp examples.classic.nonblocking:handle --engine nonblocking
# stoker serve --tcp examples.classic.nonblocking:handle --engine nonblocking --spin
"""One process, non-blocking sockets, each tried in turn. With --spin it never pauses, as in the notes."""


def handle(conn):
    print(f"a new client: {conn.peer}", flush=True)
    while data := (yield conn.recv(1024)):
        print(f"[{conn.peer}]: {data!r}", flush=True)
        yield conn.send(data)
    print(f"{conn.peer} has left", flush=True)
