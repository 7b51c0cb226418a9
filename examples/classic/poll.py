# stoker serve --tcp examples.classic.poll:handle --engine poll
"""poll: no highest descriptor, but the whole list is handed over at every call."""


async def handle(conn):
    while data := await conn.recv(1024):
        print(data, flush=True)
        await conn.send(data)
