"""The name of this process in ps(1) and top(1)."""

from importlib.machinery import ExtensionFileLoader, PathFinder
from types import ModuleType


def _extension() -> ModuleType | None:
    """The extension of setproctitle alone: the package imports logging, and so threading, which gevent patches."""
    package = PathFinder.find_spec("setproctitle")
    if package is None:
        return None
    spec = PathFinder.find_spec("_setproctitle", package.submodule_search_locations)
    if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
        return None
    module = spec.loader.create_module(spec)
    spec.loader.exec_module(module)
    return module


def set_title(text: str) -> None:
    """Name this process; without setproctitle it keeps the name that it has."""
    module = _extension()
    if module is not None:
        module.setproctitle(text)
