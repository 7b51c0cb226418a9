"""The pages of docs/ that are made, and the tables of the READMEs, are what their sources make of them."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["engines", "performance", "results"])
def test_what_is_rendered_is_current(name: str) -> None:
    specification = importlib.util.spec_from_file_location(f"render_{name}", DOCS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for path, text in module.documents().items():
        assert path.read_text("utf-8") == text, f"python docs/{name}.py writes {path.name} again"
