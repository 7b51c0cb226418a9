# stoker serve --tcp examples.classic.epoll:handle --engine epoll --trigger level
# stoker serve --tcp examples.classic.epoll:handle --engine epoll --trigger edge
"""epoll. Under edge trigger the engine receives until the kernel has nothing more; the handler does not notice."""


async def handle(conn):
    print(f"a new client [{conn.peer}]", flush=True)
    while data := await conn.recv(1024):
        print(f"recv: {data!r}", flush=True)
        await conn.send(data)
    print(f"{conn.peer} --- offline ---", flush=True)
