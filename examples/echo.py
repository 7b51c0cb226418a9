# stoker serve --tcp examples.echo:handle --engine epoll --trigger edge
# stoker serve --tcp examples.echo:generate --engine generator
# stoker serve --tcp examples.echo:coroutine --engine asyncio
"""An echo server in the three styles of raw TCP handlers. Each of them runs on every engine."""


def handle(conn):
    """A plain function blocks. Where an engine cannot, it gets a thread for the life of its connection."""
    while data := conn.recv():
        conn.send(data)


def generate(conn):
    """A generator yields what it waits for."""
    while data := (yield conn.recv()):
        yield conn.send(data)


async def coroutine(conn):
    """A coroutine awaits it."""
    while data := await conn.recv():
        await conn.send(data)
