"""`--results FILE`: what the tests recorded with `record_property`, as JSON, with the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stoker import __version__, build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", metavar="FILE", help="write what the tests measured (record_property) to this file")


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "stoker": __version__,
        "build": build.describe(),
        "commit": commit,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the file. With xdist this runs in the controller, which has the reports of all."""
    path = config.getoption("--results")
    if not path:
        return
    tests = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" and (report.user_properties or outcome == "failed"):
                measured = dict(report.user_properties)
                tests[report.nodeid] = {"outcome": outcome, "seconds": round(report.duration, 1), **measured}
    document = {"machine": machine(), "tests": dict(sorted(tests.items()))}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    terminalreporter.write_line(f"what was measured: {path}")
