"""From the words of the command line to an application, and what is said where that does not work."""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

import pytest

from stoker.apps import load
from stoker.errors import BootError

SOURCE = """
import functools

def app(environ, start_response):
    return [b"app"]

def make(word="made", *, end="."):
    def made(environ, start_response):
        return [(word + end).encode()]
    return made

class Holder:
    inner = staticmethod(app)

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "loaded_by_test.py").write_text(SOURCE)
    (tmp_path / "fails_by_test.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "loaded_by_test"


@pytest.mark.parametrize(
    ("target", "factory", "body"),
    [
        (":app", False, b"app"),
        ("", False, b"app"),
        (":Holder.inner", False, b"app"),
        (":make()", False, b"made."),
        (":make('x', end='!')", False, b"x!"),
        (":make", True, b"made."),
    ],
)
def test_what_is_found(module: str, target: str, factory: bool, body: bytes) -> None:
    assert load.load(module + target, factory)({}, None) == [body]


def test_an_object_is_taken_as_it_is() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        return []

    assert load.load(app) is app


@pytest.mark.parametrize(
    ("target", "factory", "said"),
    [
        (":ap", False, "has no 'ap'; it has app"),
        (":number", False, "a callable is needed"),
        (":number", True, "is not callable"),
        (":make(1 + x)", False, "only literals"),
        (":make(**{})", False, "only literals"),
        (":number()", False, "cannot be called"),
        (":1", False, "neither a name nor a call"),
        (":a b", False, "neither a name nor a call"),
        (":", False, "named as 'module:name'"),
    ],
)
def test_what_is_refused(module: str, target: str, factory: bool, said: str) -> None:
    with pytest.raises(BootError, match=said.replace("(", r"\(")):
        load.load(module + target, factory)


def test_a_module_that_is_not_there(module: str) -> None:
    with pytest.raises(BootError, match="there is no module 'nowhere_by_test'"):
        load.load("nowhere_by_test:app")
    with pytest.raises(BootError, match="try 'loaded_by_test:app'"):
        load.load("./loaded_by_test.py:app")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):  # its own fault, with its own traceback
        load.load("fails_by_test:app")


def test_a_factory_that_was_not_called_is_told() -> None:
    def make() -> Any:
        return None

    with pytest.raises(BootError, match="--factory"):
        load.require_wsgi(make, "m:make")
    with pytest.raises(BootError, match="environ, start_response"):
        load.require_wsgi(lambda one: None, "m:one")
    with pytest.raises(BootError, match="environ, start_response"):
        load.require_wsgi(lambda a, b, c: None, "m:three")


def test_what_takes_two_arguments_is_good() -> None:
    class Application:
        def __call__(self, environ: Any, start_response: Any) -> Any:
            return []

    class OnePerRequest:
        def __init__(self, environ: Any, start_response: Any) -> None:
            pass

    for application in (
        Application(),
        OnePerRequest,
        lambda *arguments: [],
        functools.partial(lambda a, b, c: [], 1),
        lambda environ, start_response, more=None: [],
        types.MethodType(lambda self, environ, start_response: [], object()),
        max,  # written in C
    ):
        load.require_wsgi(application, "m:app")


def test_interfaces() -> None:
    async def function(scope: Any, receive: Any, send: Any) -> None:
        pass

    class Application:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            pass

    assert load.interface_of(function) == "asgi"
    assert load.interface_of(Application()) == "asgi"
    assert load.interface_of(lambda environ, start_response: []) == "wsgi"
