"""The WSGI examples, each by its own command, and all of them on every engine."""

from __future__ import annotations

import hashlib
import http.client
import re
from collections.abc import Callable

import pytest
from tests.examples.conftest import EXAMPLES, Server, commands

from stoker.engines import REGISTRY

ENGINES = [[name] for name in REGISTRY] + [["epoll", "--trigger", "edge"], ["epoll", "--threads", "4"]]
FILE = bytes(range(256)) * 1000  # past what is kept in memory


class Client:
    """An HTTP client that keeps its connection and its cookies."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection(*server.address, timeout=20)
        server.at_end.append(self.connection.close)
        self.cookies: dict[str, str] = {}

    def ask(
        self, method: str, path: str, body: bytes = b"", **fields: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.connection.request(method, path, body or None, headers)
        response = self.connection.getresponse()
        data = response.read()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response.status, data, response.headers

    def get(self, path: str) -> bytes:
        status, data, _ = self.ask("GET", path)
        assert status == 200, data
        return data


def form(**fields: bytes) -> tuple[bytes, str]:
    """A multipart form; the field `file` is a file."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b'; filename="data.bin"' if name == "file" else b"", value)
        for name, value in fields.items()
    ]
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def use_flask(client: Client, at: str = "") -> None:
    assert b"Visits in this session: 1<" in client.get(f"{at}/")
    assert b"Visits in this session: 2<" in client.get(f"{at}/")
    stream(client, at)
    body, kind = form(file=FILE)
    status, data, _ = client.ask("POST", f"{at}/upload", body, Content_Type=kind)
    assert status == 200
    assert hashlib.sha256(FILE).hexdigest().encode() in data
    download(client, at, "flask_app.py")


def stream(client: Client, at: str) -> None:
    status, data, headers = client.ask("GET", f"{at}/stream?lines=1000")
    assert status == 200
    assert data.splitlines() == [f"line {number}".encode() for number in range(1000)]
    assert headers["Transfer-Encoding"] == "chunked"


def download(client: Client, at: str, name: str) -> None:
    status, data, headers = client.ask("GET", f"{at}/download")
    assert status == 200
    assert data == (EXAMPLES / name).read_bytes()
    assert name in headers["Content-Disposition"]


def use_django(client: Client, at: str = "") -> None:
    page = client.get(f"{at}/")
    assert b"Hello, stranger. Visits in this session: 1<" in page
    token = re.search(rb'csrfmiddlewaretoken" value="(\w+)"', page)[1]  # type: ignore[index]
    body, kind = form(name=b"Grace", csrfmiddlewaretoken=token)
    status, _, headers = client.ask("POST", f"{at}/", body, Content_Type=kind)
    assert (status, headers["Location"]) == (302, f"{at}/")
    assert b"Hello, Grace. Visits in this session: 2<" in client.get(f"{at}/")
    assert client.ask("POST", f"{at}/", form(name=b"Mallory")[0], Content_Type=kind)[0] == 403  # without the token
    stream(client, at)
    body, kind = form(csrfmiddlewaretoken=token, file=FILE)
    status, data, _ = client.ask("POST", f"{at}/upload", body, Content_Type=kind)
    assert status == 200
    assert hashlib.sha256(FILE).hexdigest().encode() in data
    download(client, at, "django_app.py")


def fail(client: Client, server: Server, at: str = "") -> None:
    assert client.ask("GET", f"{at}/error")[0] == 500
    server.says("RuntimeError: the error that was asked for")


def test_hello(serve: Callable[..., Server]) -> None:
    [command] = commands("hello.py")
    assert Client(serve(command)).get("/") == b"Hello from Stoker\n"


def test_flask(serve: Callable[..., Server]) -> None:
    [command] = commands("flask_app.py")
    server = serve(command)
    client = Client(server)
    use_flask(client)
    fail(client, server)


def test_django(serve: Callable[..., Server]) -> None:
    [command] = commands("django_app.py")
    server = serve(command)
    client = Client(server)
    use_django(client)
    fail(client, server)


@pytest.mark.parametrize("engine", ENGINES, ids=" ".join)
def test_all_on_every_engine(serve: Callable[..., Server], engine: list[str]) -> None:
    [command] = commands("index.py")
    server = serve(command, "--engine", *engine)
    client = Client(server)
    page = client.get("/").decode()
    assert 'href="flask/"' in page
    assert "stoker examples.hello:app" in page
    assert client.ask("GET", "/flask")[2]["Location"] == "/flask/"
    assert client.ask("GET", "/nothing")[0] == 404
    assert client.get("/hello/") == b"Hello from Stoker\n"
    use_flask(client, "/flask")
    fail(client, server, "/flask")
    use_django(Client(server), "/django")
    fail(client, server, "/django")


def test_every_example_begins_with_a_command() -> None:
    files = [path for path in EXAMPLES.rglob("*.py") if path.name != "__init__.py"]
    assert files
    for path in files:
        commands(path.relative_to(EXAMPLES).as_posix())
