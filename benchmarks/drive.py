"""One measurement, in a process of its own on the client's CPU: `python -m benchmarks.drive '{...}'` prints it as JSON.

Stoker's load client is used as a library, because the server's counters must be read at the moment when the warm-up
ends, and when the last answer has come.
"""

import json
import sys
import time

from benchmarks import process
from stoker.load.idle import connect_idle
from stoker.load.open import establish, make_driver, need_descriptors
from stoker.load.plan import Plan, resolve
from stoker.load.result import BOUND, Latency


class Watch:
    """Gives the client's CPU time as the driver asks for it, and notes the server's counters at that moment."""

    def __init__(self, pid):
        self.pid = pid
        self.usage = process.Usage()

    def __call__(self):
        self.usage = process.usage(self.pid)
        return time.thread_time()


def plan(order):
    if order["tcp"]:
        return Plan(
            f"tcp://127.0.0.1:{order['port']}", connections=order["connections"], seconds=order["seconds"],
            warm_up=order["warm_up"], size=order["bytes"],
        )  # fmt: skip
    return Plan(
        f"http://127.0.0.1:{order['port']}{order['path']}", connections=order["connections"], seconds=order["seconds"],
        warm_up=order["warm_up"], pipeline=order["pipeline"], close=order["close"], browser=order["browser"],
        method="POST" if order["body"] else "GET", body=b"x" * order["body"], expect=200, expect_bytes=order["bytes"],
    )  # fmt: skip


def measure(order):
    """The fields of client.Measured."""
    wanted = plan(order)
    need_descriptors(wanted.connections)
    target = resolve(wanted.url, wanted.connections, wanted.close)
    driver = make_driver(wanted, target)
    driver.spin = order["spin"]  # on a core of its own: it never has to be woken
    watch = Watch(order["pid"])
    try:
        if not wanted.close:
            establish(driver, target, wanted.connections, wanted.timeout)
        driver.drive(watch)
        used = process.usage(order["pid"]) - watch.usage  # the client is the limit where the server has time left
        client = time.thread_time() - driver.cpu
        seconds = max(driver.answered_at, driver.end) - driver.counted
        failures = {**driver.failures, "status": driver.wrong_status, "body": driver.wrong_body}
        details = list(driver.all_details().values())
        return {
            "requests": driver.requests, "seconds": seconds / 1e9, "cpu": used.cpu, "voluntary": used.voluntary,
            "involuntary": used.involuntary, "latency": Latency.of(driver.histogram).document(),
            "errors": {kind: count for kind, count in failures.items() if count},
            "client_cpu": client, "bound": used.cpu / (seconds / 1e9) < BOUND,
            "first_error": details[0] if details else "",
        }  # fmt: skip
    finally:
        driver.release()


def run(order):
    """One measurement; with idle connections, one before them on the same server too: what they add."""
    before = process.resident(order["pid"])
    if not order["idle"]:
        found = measure(order)
    else:
        alone = measure(order)
        before = process.resident(order["pid"])
        need_descriptors(order["connections"] + order["idle"])
        with connect_idle(f"http://127.0.0.1:{order['port']}/", order["idle"]) as idle:
            held = process.resident(order["pid"])
            found = measure(order)
            if closed := idle.closed():
                found["errors"]["idle"], found["first_error"] = closed, "the server closed idle connections"
        found["alone"] = alone["cpu"] / max(alone["requests"], 1)
        found["idle_bytes"] = (held[1] - before[1]) / order["idle"]
    found["rss"], found["pss"] = process.resident(order["pid"])
    return found


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
