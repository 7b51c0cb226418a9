"""The command line: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engines.harness import until
from tests.load.scripted import OK, Peer, answering, scripted

from stoker.load.__main__ import main

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(answering(OK)) as server:
        assert main([server.url, "-c", "2", "--requests", "50", "--json", "--histogram"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["url"], found["mode"], found["connections"], found["requests"]) == (server.url, "closed", 2, 50)
    assert found["rate"] == pytest.approx(50 / found["seconds"])
    assert found["bytes"] == 50 * len(OK)
    assert set(found["errors"]) == {"connect", "reset", "timeout", "framing", "status", "body"}
    assert list(found["latency"]) == ["p50", "p90", "p99", "p99.9", "max", "mean"]
    assert 0 < found["latency"]["p50"] <= found["latency"]["p99.9"] <= found["latency"]["max"]
    assert sum(count for _, count in found["histogram"]) == 50
    assert found["client"]["build"] in ("compiled", "interpreted")
    assert found["client"]["busy"] == pytest.approx(found["client"]["cpu_seconds"] / found["seconds"])
    assert found["client_bound"] is (found["client"]["busy"] > 0.9)


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(answering(OK)) as server:
        assert main([server.url, "-c", "2", "--requests", "1000", "--expect", "201"]) == 1
    out = capsys.readouterr().out
    assert "1,000 answers" in out
    assert "errors    1,000 status: an answer with status 200" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://10.0.0.1/"], "no exceptions"),
        (["http://127.0.0.1:1/", "-H", "nothing"], "it must be 'NAME: VALUE'"),
        (["http://127.0.0.1:1/", "--body", "/nowhere/file"], "--body /nowhere/file: No such file"),
        (["http://127.0.0.1:1/", "--body-size", "-1"], "--body-size -1"),
        (["http://127.0.0.1:1/", "--size", "10"], "--size: only a raw echo"),
        (["http://127.0.0.1:1/", "--histogram"], "--histogram: it goes into the document of --json"),
    ],
)
def test_a_wrong_option(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_body_from_a_file_and_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "body").write_bytes(b"12345")
    seen = []

    def script(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(OK)

    with scripted(script) as server:
        arguments = [server.url, "--requests", "1", "-c", "1", "-X", "POST", "--body", str(tmp_path / "body")]
        assert main([*arguments, "-H", "X-One:  two "]) == 0
    assert capsys.readouterr().out.startswith(f"{server.url}: 1 answers")
    assert b"\r\nX-One: two\r\n" in seen[0]
    assert seen[0].endswith(b"\r\nContent-Length: 5\r\n\r\n12345")


@pytest.mark.parametrize("more", [[], ["--rate", "100"]])
def test_ctrl_c_ends_the_run_and_prints_what_was_measured(more: list[str]) -> None:
    with scripted(answering(OK)) as server:
        child = subprocess.Popen(
            [sys.executable, "-m", "stoker.load", server.url, "-c", "2", "-d", "60", "--json", *more],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        try:
            until(lambda: server.requests > 20, what="requests")
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=20)
        finally:
            child.kill()
            child.wait()
    found = json.loads(out)
    assert child.returncode == 130
    assert found["interrupted"] is True
    assert 0 < found["requests"] <= server.requests
    assert found["seconds"] < 60
