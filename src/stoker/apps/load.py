"""From ``module:name`` to the application."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable
from typing import Any

from stoker.errors import BootError


def load(target: Any, factory: bool = False) -> Any:
    """Import what ``target`` names.

    :param target: ``"module:name"``, ``"module:name.attribute"``, ``"module:make()"`` (literal arguments allowed),
        ``"module"`` (then ``application`` or ``app``), or the object itself
    :param factory: call what was found, without arguments, and take what it returns
    :raises BootError: the text is no such target, or the module has no such name; what importing the module raises is
        let through, with its traceback
    """
    found = _named(target) if isinstance(target, str) else target
    if factory:
        if not callable(found):
            raise BootError(f"--factory: {target!r} is not callable, it is of type {type(found).__name__}")
        found = found()
    if not callable(found):
        raise BootError(
            f"{target!r} is not an application: a callable is needed, it is of type {type(found).__name__}"
            + (" (call it: 'module:make()', or --factory)" if inspect.ismodule(found) else "")
        )
    return found


def _named(target: str) -> Any:
    module_name, colon, expression = target.partition(":")
    if not module_name or (colon and not expression):
        raise BootError(f"{target!r}: an application is named as 'module:name'")
    module = _module(module_name, target)
    if not colon:
        for name in ("application", "app"):
            if hasattr(module, name):
                return getattr(module, name)
        raise BootError(
            f"{target!r}: module {module_name!r} has neither 'application' nor 'app'; name it: '{target}:name'"
        )
    return _evaluate(module, module_name, expression)


def _module(name: str, target: str) -> Any:
    if os.sep in name or (name.endswith(".py") and os.path.exists(name)):
        dotted = name.removesuffix(".py").removeprefix("./").replace(os.sep, ".")
        raise BootError(f"{target!r}: a module is named by dots, not by a path; try {target.replace(name, dotted)!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (name == missing or name.startswith(missing + ".")):
            raise BootError(
                f"{target!r}: there is no module {missing!r} to import from {os.getcwd()} (--chdir, --app-dir)"
            ) from None
        raise  # the module is there; something that it imports is not


def _evaluate(module: Any, module_name: str, expression: str) -> Any:
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise BootError(f"{expression!r} is neither a name nor a call like 'make()'") from None
    arguments: list[Any] | None = None
    keywords: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            if len(keywords) != len(node.keywords):
                raise ValueError
        except ValueError:
            raise BootError(f"{expression!r}: only literals may be given to a factory here") from None
        node = node.func
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise BootError(f"{expression!r} is neither a name nor a call like 'make()'")
    found: Any = module
    for name in (node.id, *reversed(names)):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise BootError(f"{module_name!r} has no {name!r}{_candidates(found, name)}") from None
    if arguments is not None:
        if not callable(found):
            raise BootError(
                f"{expression!r}: {ast.unparse(node)} is of type {type(found).__name__}, it cannot be called"
            )
        return found(*arguments, **keywords)
    return found


def _candidates(where: Any, name: str) -> str:
    own = [n for n in dir(where) if not n.startswith("_") and callable(getattr(where, n, None))]
    near = difflib.get_close_matches(name, own, 3) or [n for n in own if not inspect.isclass(getattr(where, n))][:5]
    return f"; it has {', '.join(near)}" if near else ""


def interface_of(application: Callable[..., Any]) -> str:
    """``"asgi"`` for what awaits (``async def app(scope, receive, send)``, or such an object), else ``"wsgi"``."""
    call = getattr(application, "__call__", None)  # noqa: B004 - it is looked at, not asked whether it is there
    return "asgi" if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call) else "wsgi"


def require_wsgi(application: Callable[..., Any], name: object) -> None:
    """Raise BootError if ``application`` cannot be called with PEP 3333's two arguments, as far as that can be told."""
    try:
        inspect.signature(application).bind({}, None)
    except TypeError:
        hint = "it takes none: if it makes the application, use --factory, or 'module:make()'"
        try:
            inspect.signature(application).bind()
        except TypeError:
            hint = "WSGI calls an application with (environ, start_response)"
        raise BootError(f"{name!r} cannot be called with two arguments; {hint}") from None
    except ValueError:
        return  # written in C, without a signature
