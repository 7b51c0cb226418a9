# stoker serve --tcp examples.classic.gevent_tcp:handle --engine gevent
"""A greenlet per connection: it reads as the thread's does, and the hub switches while it waits."""


def handle(conn):
    while data := conn.recv(1024):
        print("recv:", data, flush=True)
        conn.send(data)
