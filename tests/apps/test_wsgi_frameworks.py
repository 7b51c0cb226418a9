"""Flask and Django run unchanged on every engine: the applications of examples/."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.server import ALL, Client, Response, Server, serving

ROOT = Path(__file__).resolve().parents[2]
FILE = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Server]]:
    """Start an example on a configuration, once."""
    from contextlib import ExitStack

    running: dict[tuple[str, str], Server] = {}
    with ExitStack() as stack:

        def started(example: str, configuration: str) -> Server:
            if (example, configuration) not in running:
                more: dict[str, Any] = {"app_dir": (str(ROOT),)}
                server = stack.enter_context(serving(configuration, f"examples.{example}:app", **more))
                running[example, configuration] = server
            return running[example, configuration]

        yield started


@pytest.fixture(params=ALL)
def flask(request: pytest.FixtureRequest, start: Callable[[str, str], Server]) -> Server:
    return start("flask_app", request.param)


@pytest.fixture(params=ALL)
def django(request: pytest.FixtureRequest, start: Callable[[str, str], Server]) -> Server:
    return start("django_app", request.param)


def cookies(response: Response) -> dict[str, str]:
    """The cookies that a response sets."""
    values = [value for name, value in response.fields if name.lower() == "set-cookie"]
    return dict(value.partition(";")[0].split("=", 1) for value in values)


def cookie(jar: dict[str, str]) -> str:
    return "Cookie: " + "; ".join(f"{name}={value}" for name, value in jar.items())


def upload(client: Client, jar: dict[str, str], token: str = "", chunked: bool = False) -> Response:
    """A file in a multipart form."""
    parts = (
        [f'--X\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{token}\r\n'.encode()]
        if token
        else []
    )
    parts += [b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n', FILE, b"\r\n--X--\r\n"]
    body = b"".join(parts)
    fields = ["Content-Type: multipart/form-data; boundary=X"]
    if jar:
        fields.append(cookie(jar))
    if chunked:
        fields.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return client.get("/upload", *fields, method="POST", body=body)


def test_flask_pages_and_sessions(flask: Server) -> None:
    with flask.client() as client:
        first = client.get("/")
        assert b"Visits in this session: 1" in first.body
        assert b"Visits in this session: 2" in client.get("/", cookie(cookies(first))).body
        assert b"Visits in this session: 1" in client.get("/").body
        assert client.get("/nowhere").status == 404
        assert client.get("/", method="HEAD")["Content-Length"] == str(len(first.body))
        assert client.get("/", method="OPTIONS")["Allow"] is not None
        assert client.get("/upload").status == 405


def test_flask_streams(flask: Server) -> None:
    response = flask.get("/stream?lines=50")
    assert response.body == b"".join(b"line %d\n" % number for number in range(50))
    assert response["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("chunked", [False, True])
def test_flask_upload(flask: Server, chunked: bool) -> None:
    with flask.client() as client:
        response = upload(client, {}, chunked=chunked)
        assert response.status == 200
        assert hashlib.sha256(FILE).hexdigest().encode() in response.body
        assert client.get("/upload", method="POST").status == 400
        assert client.get("/").status == 200


def test_flask_download(flask: Server) -> None:
    response = flask.get("/download")
    assert response.body == (ROOT / "examples" / "flask_app.py").read_bytes()
    with flask.client() as client:
        client.get("/download", "Range: bytes=10-19")
        assert client.get("/download", f"If-None-Match: {response['ETag']}").status == 304


def test_flask_errors(flask: Server) -> None:
    assert flask.get("/error").status == 500
    assert "RuntimeError: the error that was asked for" in flask.logs("RuntimeError: the error that was asked for")
    assert flask.get("/").status == 200


def test_django_pages_forms_and_sessions(django: Server) -> None:
    with django.client() as client:
        first = client.get("/")
        assert b"Hello, stranger. Visits in this session: 1" in first.body
        jar = cookies(first)
        match = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', first.body)
        assert match is not None
        body = b"name=caf%C3%A9&csrfmiddlewaretoken=" + match[1]
        form = "Content-Type: application/x-www-form-urlencoded"
        assert client.get("/", form, method="POST", body=body).status == 403, "without the cookie"
        answer = client.get("/", form, cookie(jar), method="POST", body=body)
        assert answer.status == 302
        jar |= cookies(answer)
        second = client.get("/", cookie(jar))
        assert "Hello, caf\u00e9. Visits in this session: 2".encode() in second.body
        assert client.get("/nowhere").status == 404


def test_django_streams(django: Server) -> None:
    response = django.get("/stream?lines=50")
    assert response.body == b"".join(b"line %d\n" % number for number in range(50))
    assert response["Transfer-Encoding"] == "chunked"


def test_django_upload(django: Server) -> None:
    with django.client() as client:
        first = client.get("/")
        match = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', first.body)
        assert match is not None
        response = upload(client, cookies(first), match[1].decode())
        assert response.status == 200
        assert hashlib.sha256(FILE).hexdigest().encode() in response.body


def test_django_download(django: Server) -> None:
    response = django.get("/download")
    assert response.body == (ROOT / "examples" / "django_app.py").read_bytes()
    assert response["Content-Length"] == str(len(response.body))


def test_django_errors(django: Server) -> None:
    assert django.get("/error").status == 500
    django.logs("RuntimeError: the error that was asked for")
    assert django.get("/").status == 200
