"""From /proc and runs to figures, verdicts and pages."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.goals import most, verdicts
from benchmarks.summary import added, growth, ratios, row

from benchmarks import client, process, render

STAT = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 50 {own} {forced} 20 0 1 0 0"


def run(candidate: str, number: int, cpu: float, **more: Any) -> dict[str, Any]:
    return {
        "candidate": candidate, "round": number, "connections": 64, "requests": 1000, "seconds": 2.0, "cpu": cpu,
        "voluntary": 10, "involuntary": 1, "latency": {"p50": 1e-4, "p99": 1e-3, "p99.9": 2e-3}, "errors": {},
        "bound": False, "rss": 1, "pss": 1, "alone": 0.0, "idle_bytes": 0.0, "first_error": "", **more,
    }  # fmt: skip


def workload(*runs: dict[str, Any], base: str = "C epoll") -> dict[str, Any]:
    checks = {one["candidate"]: {"wrong": "", "notes": []} for one in runs}
    return {"title": "t", "base": base, "checks": checks, "runs": list(runs)}


def document(**workloads: dict[str, Any]) -> dict[str, Any]:
    names = {name for one in workloads.values() for name in one["checks"]}
    family = {"C epoll": "c", "stoker epoll": "stoker"}
    return {
        "date": "2026-01-01T00:00:00+00:00", "commit": "c", "machine": {"kernel": "k"}, "versions": {"stoker": "s"},
        "settings": {}, "workloads": workloads, "system_calls": {}, "wrk": [],
        "candidates": {
            name: {"family": family.get(name, "peer"), "interface": "wsgi", "engine": "", "note": "", "package": "",
                   "cap": 1, "missing": ""}
            for name in sorted(names)
        },
    }  # fmt: skip


def test_children_that_were_waited_for_count_and_a_bracket_in_the_name_does_not_confuse() -> None:
    assert process.reaped(STAT.format(own=3 * process.TICK, forced=process.TICK)) == pytest.approx(4.0)


def test_context_switches_and_memory_are_read() -> None:
    assert process.switches("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n") == (7, 9)
    assert process.memory("00-ff ---p [rollup]\nRss:    20 kB\nPss:    12 kB\nPss_Anon:  3 kB\n") == (20480, 12288)


def test_own_time_is_seen() -> None:
    import os

    before = process.usage(os.getpid())
    while process.usage(os.getpid()).cpu - before.cpu < 0.02:
        sum(range(1000))


def test_counts_of_system_calls_are_read() -> None:
    assert client.perf_count("# started\n\n4321,,raw_syscalls:sys_enter,1000,100.00,,\n") == 4321
    assert client.perf_count("<not supported>,,raw_syscalls:sys_enter,0,0.00,,\n") is None
    assert client.strace_count("% time\n100.00 0.1 1 1234 5 total\n") == 1234
    assert client.strace_count("") is None


def test_a_ratio_is_of_the_same_round_and_the_baselines_of_a_round_are_averaged() -> None:
    found = workload(
        run("C epoll", 0, 1.0), run("C epoll", 0, 3.0), run("C epoll", 1, 4.0), run("x", 0, 4.0), run("x", 1, 4.0)
    )
    assert ratios(found, "x") == {0: 2.0, 1: 1.0}
    assert (row(found, "x").ratio, row(found, "x").low, row(found, "x").high) == (1.5, 1.0, 2.0)


def test_a_run_with_an_error_does_not_count_and_is_said() -> None:
    found = workload(run("C epoll", 0, 1.0), run("x", 0, 1.0, errors={"reset": 3}, first_error="gone"))
    assert ratios(found, "x") == {}
    assert row(found, "x").wrong == "failed under load: 3 × reset: gone"


def test_what_idle_connections_add_and_growth() -> None:
    found = workload(run("x", 0, 2.0, alone=0.001), run("x", 0, 1.0, connections=1))
    assert added(found, "x") == pytest.approx(2.0)
    assert growth(found) == {"x": {1: 0.001, 64: 0.002}}


def test_a_missed_goal_says_by_how_much() -> None:
    assert most("g", 1.2, 1.2).met is True
    assert most("g", None, 1.2).met is None
    missed = most("g", 1.5, 1.2)
    assert (missed.met, missed.measured) == (False, "1.50 ×: above the goal by 0.30 ×, 25%")


def test_a_cheaper_peer_is_named() -> None:
    found = document(host=workload(run("C epoll", 0, 1.0), run("stoker epoll", 0, 1.15), run("swift", 0, 1.1)))
    by_goal = {one.goal: one for one in verdicts(found)}
    assert by_goal["epoll, WSGI, only Host: at most 1.20 × the C baseline's CPU"].met is True
    below = by_goal["epoll, WSGI, only Host: below every peer"]
    assert below.met is False
    assert "Not below swift (1.10 ×)" in below.measured


def test_a_partial_run_is_rendered(tmp_path: Path) -> None:
    found = document(
        host=workload(run("C epoll", 0, 1.0), run("<b>", 0, 2.0)),
        growth=workload(run("C epoll", 0, 1.0), run("C epoll", 0, 2.0, connections=1000)),
        idle=workload(run("C epoll", 0, 1.0, alone=0.001, idle_bytes=300.0)),
    )
    assert "2.00" in render.text(found)
    page = render.page(found)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "performance.json").write_text(json.dumps(found), "utf-8")
    made = render.documents(tmp_path)
    assert {path.name for path in made} == {"performance.md", "host.svg", "growth.svg"}
    assert "| C epoll | 300 | 1.00 |" in made[tmp_path / "performance.md"]
