"""Stoker: a Python server in which the concurrency model is a flag.

`serve(app)` serves a WSGI application, `serve(tcp=handler)` a raw TCP handler; `Config` holds the options. A raw
handler waits with `sleep`, and starts others of its kind with `spawn` and `join`.
"""

from typing import TYPE_CHECKING, Any

from stoker import build

build.guard()

# The guard must come before anything that may be compiled.
from stoker.config import Config  # noqa: E402
from stoker.errors import ConfigError  # noqa: E402

if TYPE_CHECKING:
    from stoker.apps.tcp import join, sleep, spawn

__all__ = ["Config", "__version__", "join", "serve", "sleep", "spawn"]
__version__ = "0.1.0"


def serve(app: object = None, **options: object) -> int:
    """Serve `app` in this process and the workers that it forks, until it is told to stop; return the exit status.

    `app` is an application or a text that names one ("module:name"); `options` are the fields of `Config`, as values
    or as the text that the command line takes. Environment variables and files are not read. Raises ConfigError for a
    wrong option.
    """
    from stoker import log, supervisor

    arguments: dict[str, Any] = {"app": app, **options}
    config = Config(**arguments)
    if config.app is None and config.tcp is None:
        raise ConfigError("nothing to serve: give an application, or a raw TCP handler as tcp")
    supervisor.guard()
    log.setup(config)
    return supervisor.run(config)


def __getattr__(name: str) -> object:
    """Raw handlers' `sleep`, `spawn` and `join`, imported when they are first asked for."""
    if name in ("sleep", "spawn", "join"):
        from stoker.apps import tcp

        value: object = getattr(tcp, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
