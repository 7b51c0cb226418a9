# stoker examples.index:app
"""One WSGI application that shows what is here and mounts the others: what ./scripts/serve runs."""

import html
import importlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from examples import hello

NEW_LINE = "\n"  # no backslash in an f-string before Python 3.12
HERE = Path(__file__).resolve().parent

MOUNTED: dict[str, WSGIApplication] = {"/hello": hello.app}
MISSING: dict[str, str] = {}
for name in ("flask", "django"):
    try:
        MOUNTED[f"/{name}"] = importlib.import_module(f"examples.{name}_app").app
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        MISSING[name] = f"not installed: pip install {name}"


def commands() -> dict[str, list[str]]:
    """The commands that each example begins with, by file."""
    found = {}
    for path in sorted(HERE.rglob("*.py")):
        with path.open(encoding="utf-8") as lines:
            first = itertools.takewhile(lambda line: line.startswith("# stoker "), lines)
            if said := [line.removeprefix("# ").strip() for line in first]:
                found[path.relative_to(HERE.parent).as_posix()] = said
    return found


def page() -> bytes:
    links = [f'<li><a href="{at[1:]}/">{at}/</a>' for at in MOUNTED]
    links += [f"<li>{name} ({html.escape(why)})" for name, why in MISSING.items()]
    rows = [f"<tr><td>{file}<td><pre>{html.escape(NEW_LINE.join(said))}</pre>" for file, said in commands().items()]
    return f"""<!doctype html><meta charset="utf-8"><title>Stoker's examples</title>
<h1>Stoker's examples</h1>
<p>Mounted here:</p><ul>{"".join(links)}</ul>
<p>Each file and the command that runs it alone, with the environment on: <code>source .venv/bin/activate</code></p>
<table>{"".join(rows)}</table>
""".encode()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    for at, application in MOUNTED.items():
        if path == at:  # the relative links of a page need the slash
            start_response(
                "308 Permanent Redirect", [("Location", f"{environ['SCRIPT_NAME']}{at}/"), ("Content-Length", "0")]
            )
            return [b""]
        if path.startswith(at + "/"):
            environ["SCRIPT_NAME"] += at
            environ["PATH_INFO"] = path[len(at) :]
            return application(environ, start_response)
    if path != "/":
        body = b"There is nothing here. What there is, / shows.\n"
        start_response(
            "404 Not Found", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        )
        return [body]
    body = page()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
