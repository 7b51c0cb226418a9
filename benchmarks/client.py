"""The load client, as a child process on the client's CPU: Stoker's own, and wrk to compare it with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.candidates import ROOT, environment
from benchmarks.check import BROWSER
from benchmarks.process import Server, Usage
from benchmarks.workloads import Workload

WRK = """
wrk.method = "{method}"
{body}
{pipeline}
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("\\nJSON {{" ..
        "\\"requests\\": %d, \\"seconds\\": %f, \\"errors\\": %d, \\"p50\\": %f, \\"p99\\": %f, \\"p999\\": %f}}\\n",
        summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6))
end
"""


class ClientFailed(Exception):
    """The client could not do its work; the text says why."""


@dataclass
class Measured:
    """One measurement. Times in seconds; cpu, voluntary and involuntary are the server's, over all the requests."""

    requests: int
    seconds: float
    cpu: float
    voluntary: int
    involuntary: int
    latency: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    bound: bool = False
    client_cpu: float = 0.0
    first_error: str = ""
    rss: int = 0
    pss: int = 0
    alone: float = 0.0
    idle_bytes: float = 0.0

    def document(self) -> dict[str, Any]:
        return asdict(self)


def run(words: list[str], timeout: float) -> str:
    """Run a client on its CPU; what it prints. Raises ClientFailed."""
    cpus = process.cores()[1]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT, env=environment({}),
            stdin=subprocess.DEVNULL, preexec_fn=lambda: process.prepare(cpus),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"the client did not end within {timeout:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise ClientFailed(f"the client ended with status {done.returncode}: {said}")
    return done.stdout


def drive(server: Server, workload: Workload, seconds: float, connections: int = 0, warm_up: float = 0.2) -> Measured:
    """Measure by Stoker's client. Raises ClientFailed."""
    order = {
        "port": server.port, "pid": server.pid, "seconds": seconds, "connections": connections or workload.connections,
        "idle": workload.idle, "spin": len(set().union(*process.cores())) > 1, "warm_up": warm_up, "path": workload.path, "pipeline": workload.pipeline, "close": workload.close,
        "browser": workload.browser, "body": workload.body, "tcp": workload.tcp, "bytes": workload.bytes,
    }  # fmt: skip
    text = run([sys.executable, "-m", "benchmarks.drive", json.dumps(order)], seconds + 60)
    return Measured(**json.loads(text))


def wrk_script(workload: Workload, port: int) -> str:
    body = f'wrk.body = string.rep("x", {workload.body})' if workload.body else ""
    pipeline = ""
    if workload.pipeline > 1:
        one = f"GET {workload.path} HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n"
        pipeline = f'local batch = string.rep("{one}", {workload.pipeline})\nrequest = function() return batch end'
    return WRK.format(method="POST" if workload.body else "GET", body=body, pipeline=pipeline)


def drive_wrk(server: Server, workload: Workload, seconds: float) -> Measured:
    """Measure by wrk: what the server used between its start and its end, so connecting counts."""
    fields = [*(BROWSER if workload.browser else ()), *(["Connection: close"] if workload.close else [])]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(wrk_script(workload, server.port))
        script.flush()
        words = ["wrk", "-t1", f"-c{workload.connections}", f"-d{max(1, round(seconds))}s", "-s", script.name]
        words += [word for one in fields for word in ("-H", one)]
        before = process.usage(server.pid)
        text = run([*words, f"http://127.0.0.1:{server.port}{workload.path}"], seconds + 60)
        used = process.usage(server.pid) - before
    line = next((line for line in text.splitlines() if line.startswith("JSON ")), "")
    if not line:
        raise ClientFailed(f"wrk printed no figures: {text.strip()[-200:]}")
    found = json.loads(line[5:])
    return Measured(
        found["requests"], found["seconds"], used.cpu, used.voluntary, used.involuntary,
        latency={"p50": found["p50"], "p99": found["p99"], "p99.9": found["p999"]},
        errors={"all": found["errors"]} if found["errors"] else {},
    )  # fmt: skip


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def system_calls(server: Server, workload: Workload, seconds: float = 0.4) -> tuple[float, str]:
    """System calls for a request, and the tool that counted them: perf where it may, else strace."""
    for tool, words, parse in (
        ("perf stat", ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"], perf_count),
        ("strace", ["strace", "-f", "-c", "-o"], strace_count),
    ):
        if not shutil.which(words[0]):
            continue
        with tempfile.NamedTemporaryFile("r") as output:
            pids = process.tree(server.pid)
            which = (
                ["-p", ",".join(map(str, pids))]
                if tool == "perf stat"
                else [x for pid in pids for x in ("-p", str(pid))]
            )
            watcher = subprocess.Popen(
                [*words, output.name, *which],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
            try:
                time.sleep(0.3)  # it has no way to tell that it is attached
                measured = drive(server, workload, seconds, warm_up=0)
            finally:
                watcher.send_signal(signal.SIGINT)
                watcher.wait(10)
            count = parse(Path(output.name).read_text("utf-8"))
        if count and measured.requests:
            return count / measured.requests, tool
    raise ClientFailed("neither perf nor strace could count system calls here")


def perf_count(text: str) -> int | None:
    """The number in the output of `perf stat -x,`; None where it did not count."""
    for line in text.splitlines():
        value, *rest = line.split(",")
        if "raw_syscalls" in line and value.isdigit() and rest:
            return int(value)
    return None


def strace_count(text: str) -> int | None:
    """The calls in the line "total" of `strace -c`; None where there is none."""
    for line in text.splitlines():
        if line.endswith(" total"):
            return int(line.split()[3])
    return None


__all__ = [
    "ClientFailed",
    "Measured",
    "Usage",
    "drive",
    "drive_wrk",
    "has_wrk",
    "perf_count",
    "strace_count",
    "system_calls",
]
