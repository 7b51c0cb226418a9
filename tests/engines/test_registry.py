"""The registry of engines."""

import importlib

from stoker import engines


def test_an_engine_that_is_imported_hides_no_other() -> None:
    """The package has engines called select and asyncio: their modules become its attributes when they are imported."""
    here = {name: info for name, info in engines.REGISTRY.items() if not info.probe or not engines.unavailable(name)}
    assert set(engines.REGISTRY) - set(here) <= {"uring"}
    for info in here.values():
        importlib.import_module(info.target.partition(":")[0])
    assert {name: engines.unavailable(name) for name in here} == dict.fromkeys(here, "")
