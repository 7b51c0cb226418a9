"""`--env-file`."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.config import envfile
from stoker.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# a comment\n\n  \n", {}),
        ("A=1\nB = two \r\nexport C=three\n", {"A": "1", "B": "two", "C": "three"}),
        ("A=\nB=''\nC=\"\"", {"A": "", "B": "", "C": ""}),
        ("A=a b c # no\nB=a#b", {"A": "a b c", "B": "a#b"}),
        ('A="\\${B} ${B:-b} \\\\${C:-c}"', {"A": "${B} b \\c"}),
        ("A=#x\nB= # y", {"A": "#x", "B": ""}),
        ('A=\'a # b\' # c\nB="x\\n\\"y\\\\" # d', {"A": "a # b", "B": 'x\n"y\\'}),
        ("A=x\nB=${A}/${C:-z}/$A/${NOPE}\nC='${A}'", {"A": "x", "B": "x/z/$A/", "C": "${A}"}),
        ("A=${HOME_OF_TEST}", {"A": "/home"}),
        ("A=https://x.example/?a=b&c", {"A": "https://x.example/?a=b&c"}),
        ("A=ü", {"A": "ü"}),
    ],
)
def test_read(text: str, found: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(text, "utf-8")
    assert envfile.read(str(path), {"HOME_OF_TEST": "/home"}) == found


@pytest.mark.parametrize("line", ["A", "=x", "1A=x", "A B=x", "A='x", 'A="x', "A='x' y", "A=x\0", "É=1", "A=1 'x'#\0"])
def test_wrong_lines(line: str, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(f"X=1\n{line}\n", "utf-8")
    with pytest.raises(ConfigError, match="env line 2 is not NAME=VALUE"):
        envfile.read(str(path))


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        envfile.read(str(tmp_path / "nope"))
    (tmp_path / "env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        envfile.read(str(tmp_path / "env"))


def test_what_is_set_already_stays(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    environ = {"A": "shell"}
    envfile.load(str(tmp_path / "env"), environ)
    assert environ == {"A": "shell", "B": "file"}
