"""docs/engines.md is what the registry makes of it."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_engines_is_current() -> None:
    specification = importlib.util.spec_from_file_location("render_engines", DOCS / "engines.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.render() == (DOCS / "engines.md").read_text("utf-8"), "python docs/engines.py writes it again"
