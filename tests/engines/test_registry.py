"""The registry of engines."""

import importlib

from stoker import engines


def test_an_engine_that_is_imported_hides_no_other() -> None:
    """The package has engines called select and asyncio: their modules become its attributes when they are imported."""
    for info in engines.REGISTRY.values():
        importlib.import_module(info.target.partition(":")[0])
    assert {name: engines.unavailable(name) for name in engines.REGISTRY} == dict.fromkeys(engines.REGISTRY, "")
