"""docs/engines.md and the tables of the READMEs are what the registry makes of them."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_engines_is_current() -> None:
    specification = importlib.util.spec_from_file_location("render_engines", DOCS / "engines.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for path, text in module.documents().items():
        assert path.read_text("utf-8") == text, f"python docs/engines.py writes {path.name} again"
