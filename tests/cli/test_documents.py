"""The documents that are made from tables are those that are committed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stoker.cli import documents
from stoker.cli.arguments import flags
from stoker.config import OPTIONS, others

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_committed(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == documents.DOCUMENTS[name](), "run: python -m stoker.cli.documents"


def test_written(tmp_path: Path) -> None:
    assert documents.main(str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(documents.DOCUMENTS)


def test_every_flag_is_in_the_options() -> None:
    text = documents.options()
    for name in OPTIONS:
        for flag in flags(name):
            assert re.search(rf"`{re.escape(flag)}[` ]", text), flag


def test_every_row_has_all_cells() -> None:
    for render in documents.DOCUMENTS.values():
        rows = [line for line in render().splitlines() if line.startswith("|")]
        assert len(rows) > 60
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 5), row


def test_every_foreign_flag_is_in_the_page() -> None:
    text = documents.from_gunicorn_and_uvicorn()
    for row in (*others.FROM_GUNICORN, *others.FROM_UVICORN):
        for flag in row.flags.split():
            assert f"`{flag}`" in text
