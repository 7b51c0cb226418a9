# stoker serve --tcp examples.chat:handle
"""A chat by lines: `nc 127.0.0.1 8000`, as often as you like. /who lists who is there, /quit leaves.

The room is a dictionary in the memory of one worker. So it is one room on every engine but `process`, where each
connection has a process of its own, and with one worker.

Nobody waits for a slow member: `post` gives a message to the connection and returns. A member that does not read
misses messages, and is told how many when it speaks again. One that takes nothing for the whole of --write-timeout is
closed.
"""

members = {}  # name → connection
missed = {}  # name → messages that did not fit


def tell(text, besides=None):
    """Send a line to everybody but one."""
    for name, conn in list(members.items()):
        if name == besides:
            continue
        if not conn.post(f"{text}\n".encode()):
            missed[name] = missed.get(name, 0) + 1


def words(line):
    """What a line says: no control characters, lest somebody plays with the others' terminals."""
    return "".join(one for one in line.decode("utf-8", "replace") if one.isprintable()).strip()


async def enter(conn):
    """Ask for a name until it is a good one; "" if the client leaves."""
    await conn.send(b"* your name?\n")
    while line := await conn.recv_line(limit=200, timeout=60):
        name = words(line)
        if not name or len(name) > 20:
            await conn.send(b"* 1 to 20 characters, please\n")
        elif members.setdefault(name, conn) is not conn:
            await conn.send(b"* there is one of that name already; another?\n")
        else:
            return name
    return ""


async def handle(conn):
    try:
        name = await enter(conn)
    except TimeoutError:
        return
    if not name:
        return
    try:
        tell(f"* {name} has come")
        while line := await conn.recv_line(limit=4000):
            if lost := missed.pop(name, 0):
                await conn.send(f"* you have missed {lost} messages\n".encode())
            said = words(line)
            if said == "/quit":
                break
            if said == "/who":
                await conn.send(f"* here: {', '.join(sorted(members))}\n".encode())
            elif said:
                tell(f"{name}: {said}", besides=name)
    finally:  # however it ends
        del members[name]
        missed.pop(name, None)
        tell(f"* {name} has left")
