"""`-c gunicorn.conf.py` is refused, and what can be read of it is printed as TOML.

Nothing of the file is executed: it is parsed, and only literals and the arithmetic between them are evaluated.
"""

import ast
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from stoker.cli import toml
from stoker.config import OPTIONS, others
from stoker.errors import ConfigError

OPERATORS: dict[type[ast.operator], Callable[[int | float, int | float], int | float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
# gunicorn's value 0 or None means "not set" for these.
UNSET = ("user", "group", "umask", "pidfile", "chdir", "accesslog", "proc_name", "pythonpath")


def is_python(path: str) -> bool:
    """Whether --config names a file, or a module, of gunicorn."""
    return path.endswith(".py") or path.startswith(("python:", "file:"))


def refuse(path: str) -> str:
    """The text to print for a configuration file of gunicorn: TOML, with comments for what it cannot say.

    Raises ConfigError when the file cannot be read, or is not Python.
    """
    if path.startswith("python:"):
        raise ConfigError(
            f"{path}: a module of gunicorn's options is not imported; name its file, to have it translated"
        )
    path = path.removeprefix("file:")
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read(), path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} is not a Python file: {error}") from None
    found = Translation()
    for statement in tree.body:
        for name, node in assignments(statement):
            found.add(name, node, f"{os.path.basename(path)} line {statement.lineno}")
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            found.remarks.append(f"{statement.name}() in line {statement.lineno}: {others.HOOK}")
        elif isinstance(statement, ast.If | ast.For | ast.While | ast.With | ast.Try):
            found.remarks.append(f"line {statement.lineno}: what a condition or a loop sets was not looked at")
    return "\n".join([*(f"# {remark}" for remark in found.remarks), *toml.lines(found.values, found.notes)])


def assignments(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    """The names that a statement sets, each with its expression."""
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        return [(statement.target.id, statement.value)]
    return []


@dataclass
class Translation:
    """What came out: options with a note where each is from, and remarks about what could not be said."""

    values: dict[str, object] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, node: ast.expr, where: str) -> None:
        """Translate one setting."""
        known = others.settings().get(name)
        if known is None:
            if not name.startswith("_"):
                self.remarks.append(f"{name} in {where}: no setting of gunicorn 27")
            return
        option = option_of(known)
        if known.advice or option is None:
            self.remarks.append(f"{name} in {where}: {known.advice or 'this makes sense on the command line alone'}")
            return
        try:
            value = literal(node)
            if name in UNSET and value in (None, 0, ""):
                return
            self.values[option] = OPTIONS[option].check(value)
            self.notes[option] = f"{where}: {name}"
        except NotLiteral:
            hint = '; "auto" stands for as many as the CPUs' if option == "workers" else ""
            self.remarks.append(
                f"{option} ({name} in {where}): not a literal, so write it yourself: {ast.unparse(node)}{hint}"
            )
        except ValueError as wrong:
            self.remarks.append(f"{option} ({name} in {where}): {wrong}")


def option_of(known: others.Other) -> str | None:
    """The option that a setting of gunicorn is here; None for one that only makes sense on the command line."""
    if known.setting == "wsgi_app":
        return "app"
    for name, option in OPTIONS.items():
        if not option.command_line_only and {"--" + name.replace("_", "-"), *option.aliases} & set(known.flags.split()):
            return name
    return None


class NotLiteral(Exception):
    """An expression would have to be executed to know its value."""


def literal(node: ast.expr) -> object:
    """The value of an expression of literals and the arithmetic between them. Raises NotLiteral for any other."""
    try:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            left, right = literal(node.left), literal(node.right)
            if isinstance(left, int | float) and isinstance(right, int | float):
                return OPERATORS[type(node.op)](left, right)
            raise NotLiteral
        return ast.literal_eval(node)
    except (ValueError, ArithmeticError):
        raise NotLiteral from None
