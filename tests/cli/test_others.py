"""Every flag of gunicorn and uvicorn is in the table: their own --help and settings say what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from stoker.cli import arguments
from stoker.cli.documents import here
from stoker.cli.gunicorn import option_of
from stoker.config import others
from stoker.errors import ConfigError


def flags(module: str) -> set[str]:
    """Every flag that a server's --help mentions at the beginning of an entry."""
    environ = {**os.environ, "COLUMNS": "300"}
    run = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, env=environ
    )
    entries = re.findall(r"^\s{2,8}(-[^ ].*?)(?:\s{2,}|$)", run.stdout, re.MULTILINE)
    return {flag for entry in entries for flag in re.findall(r"(?:^|[\s,/])(--?[A-Za-z][\w-]*)", entry)}


def table(rows: tuple[others.Other, ...]) -> set[str]:
    return {flag for row in rows for flag in row.flags.split()}


def test_gunicorn() -> None:
    found = flags("gunicorn")
    assert len(found) > 110
    assert table(others.FROM_GUNICORN) == found


def test_uvicorn() -> None:
    found = flags("uvicorn")
    assert len(found) > 55
    assert table(others.FROM_UVICORN) == found


def test_the_versions_are_those_that_the_page_names() -> None:
    assert metadata.version("gunicorn").startswith(others.GUNICORN.split()[1] + ".")
    assert metadata.version("uvicorn").startswith(others.UVICORN.split()[1] + ".")


def test_settings_of_gunicorn() -> None:
    from gunicorn.config import KNOWN_SETTINGS

    known = {setting.name: set(setting.cli or ()) for setting in KNOWN_SETTINGS}
    hooks = {setting.name for setting in KNOWN_SETTINGS if setting.section in ("Server Hooks", "Dirty Arbiter Hooks")}
    rows = others.settings()
    assert {name for name in known if not known[name]} <= set(rows) | hooks
    for row in others.FROM_GUNICORN[2:]:
        assert known[row.setting] == set(row.flags.split())


@pytest.mark.parametrize(
    "row", [*others.FROM_GUNICORN, *others.FROM_UVICORN], ids=lambda row: row.flags.replace(" ", ",")
)
def test_each_flag_is_known_or_refused_with_advice(row: others.Other) -> None:
    for flag in row.flags.split():
        if row.advice:
            assert here(flag) is None
            with pytest.raises(ConfigError) as caught:
                arguments.parse_serve(["m:a", flag])
            assert str(caught.value) == f"{flag} is not offered: {row.advice}"
            with pytest.raises(ConfigError, match="is not offered"):
                arguments.parse_serve(["m:a", f"{flag}=x", "--workers", "x"])
        else:
            assert here(flag) is not None


def test_a_setting_has_an_advice_or_an_option() -> None:
    on_the_command_line = {"config", "check_config", "print_config"}
    for name, row in others.settings().items():
        assert bool(row.advice) != (option_of(row) is not None) or name in on_the_command_line
