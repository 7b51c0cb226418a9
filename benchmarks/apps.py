"""What is served: the same in WSGI, in ASGI and as a raw TCP handler.

`/` 13 bytes; `/64k` 65,536 bytes; `/upload` reads the body and answers its length; `/stream` 16 blocks of 1,024 bytes.
"""

HELLO = b"Hello, world!"
LARGE = b"x" * 65536
BLOCK = b"x" * 1024
BLOCKS = 16
PIECE = 65536


def blocks():
    for _ in range(BLOCKS):
        yield BLOCK


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        body = HELLO
    elif path == "/64k":
        body = LARGE
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return blocks()
    elif path == "/upload":
        left = announced = int(environ["CONTENT_LENGTH"])
        read = environ["wsgi.input"].read
        while left > 0 and (data := read(min(left, PIECE))):
            left -= len(data)
        body = b"%d" % (announced - left)
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def lifespan(receive, send):
    while True:
        kind = (await receive())["type"]
        await send({"type": kind + ".complete"})
        if kind == "lifespan.shutdown":
            return


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    headers = [(b"content-type", b"text/plain")]
    body, status = b"", 200
    if path == "/":
        body = HELLO
    elif path == "/64k":
        body = LARGE
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(BLOCKS):
            await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    elif path == "/upload":
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"%d" % size
    else:
        status = 404
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(conn):
    while data := await conn.recv():
        await conn.send(data)


def echo_steps(conn):
    while data := (yield conn.recv()):
        yield conn.send(data)


def echo_plain(conn):
    while data := conn.recv():
        conn.send(data)
