# stoker serve --tcp examples.classic.select:handle --engine select
"""select, and a key that stops the server: q, then Enter (h shows the others)."""


def handle(conn):
    while data := (yield conn.recv(1024)):
        print(data, flush=True)
        yield conn.send(data)  # all of it, although this client may read slowly: meanwhile the others are served
