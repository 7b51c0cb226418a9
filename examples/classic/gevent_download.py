# stoker serve --tcp examples.classic.gevent_download:handle --engine gevent
"""Many downloads at once, from this server itself, so that nothing leaves the machine. `nc 127.0.0.1 8000`, then Enter.

`urllib` knows nothing of gevent. It switches since the standard library is patched: three downloads that take half a
second each take half a second together.
"""

import time
import urllib.request

import gevent

open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # no proxy: it is this machine


def download(said, url):
    said.append(f"GET: {url}")
    with open_url(url, timeout=10) as response:
        data = response.read()
    said.append(f"{len(data)} bytes received from {url}")


def serve(conn, target):
    """The other side: so many zeros, as the target says, after half a second."""
    while conn.recv_line(timeout=10).strip():
        pass
    gevent.sleep(0.5)
    conn.send(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(min(int(target[1:]), 1 << 20)))


def handle(conn):
    line = conn.recv_line(timeout=60)
    if line.startswith(b"GET "):
        serve(conn, line.split()[1])
        return
    host, port = conn.local[:2]
    start = time.monotonic()
    sizes = (1000, 20000, 300000)
    said = []
    gevent.joinall(
        [gevent.spawn(download, said, f"http://{host}:{port}/{size}") for size in sizes],
        raise_error=True,  # or a download that failed would go unnoticed
    )
    said.append(f"{len(sizes)} downloads in {time.monotonic() - start:.1f} s")
    conn.send("".join(f"{line}\n" for line in said).encode())
