"""``python -m stoker.load URL``: the load client on the command line.

Exit status: 0, all was answered as it should be; 1, something was not; 2, a wrong option; 130, interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stoker.errors import ConfigError, StokerError
from stoker.load.plan import Plan
from stoker.load.result import Result
from stoker.load.running import run

EXAMPLES = """examples:
  python -m stoker.load http://127.0.0.1:8000/ -c 64 -d 5
  python -m stoker.load http://127.0.0.1:8000/ --rate 2000 -d 10 --json
  python -m stoker.load http://127.0.0.1:8000/upload -X POST --body-size 1048576 --expect 200
  python -m stoker.load tcp://127.0.0.1:9000 --size 1024

It speaks to this machine alone: 127.0.0.0/8 and ::1, looked at after the name is resolved.
"""


# The names of an option, its metavar, its default (which has its type), its help, and what it excludes.
VALUES: list[tuple[tuple[str, ...], str, int | float | str, str, str]] = [
    (("-c", "--connections"), "N", 64, "connections at a time (default: 64)", ""),
    (("-d", "--seconds"), "S", 5.0, "send for so long (default: 5), after the warm-up", "length"),
    (("--requests",), "N", 0, "send so many requests, in place of -d", "length"),
    (("--rate",), "R", 0.0, "requests a second in all, by the clock (default: closed loop)", ""),
    (("--pipeline",), "N", 1, "requests in flight on a connection (default: 1)", ""),
    (("--idle",), "N", 0, "hold N connections more open, each after one request", ""),
    (("-X", "--method"), "METHOD", "GET", "of the request (default: GET)", ""),
    (("--body",), "FILE", "", "send the bytes of this file", "body"),
    (("--body-size",), "BYTES", 0, "send a body of so many bytes", "body"),
    (("--size",), "BYTES", 0, "the message of a raw echo (default: 64)", ""),
    (("--warm-up",), "S", 0.0, "seconds before, whose answers are not counted (default: 0)", ""),
    (("--timeout",), "S", 10.0, "seconds that an answer may take (default: 10)", ""),
    (("--expect",), "STATUS", 0, "any other status is an error (default: 400 and above is)", ""),
    (("--expect-bytes",), "N", -1, "a body of any other length is an error", ""),
]
SWITCHES = [
    ("--close", "a new connection for each request"),
    ("--browser", "send what a browser sends, eleven fields with Host"),
    ("--json", "print one JSON document"),
    ("--histogram", "with --json: add the histogram, [seconds, count] a bucket"),
]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m stoker.load",
        description="Measure a server on this machine: HTTP/1.1, or a raw TCP echo.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("url", metavar="URL", help="http://HOST:PORT/PATH, or tcp://HOST:PORT for a raw echo")
    groups = {name: made.add_mutually_exclusive_group() for name in ("length", "body")}
    for names, metavar, default, meaning, group in VALUES:
        kind = type(default)
        groups.get(group, made).add_argument(*names, type=kind, default=default, metavar=metavar, help=meaning)
    for name, meaning in SWITCHES:
        made.add_argument(name, action="store_true", help=meaning)
    made.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header field more; repeatable"
    )
    return made


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the command line asks for. Raises ConfigError."""
    if options.histogram and not options.json:
        raise ConfigError("--histogram: it goes into the document of --json")
    if not 0 <= options.body_size <= 1 << 30:
        raise ConfigError(f"--body-size {options.body_size}: it must be from 0 to {1 << 30:,}")
    if options.size and not options.url.startswith("tcp://"):
        raise ConfigError("--size: only a raw echo has a message, tcp://HOST:PORT; a request has --body-size")
    fields = []
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon:
            raise ConfigError(f"--header {text!r}: it must be 'NAME: VALUE'")
        fields.append((name.strip(), value.strip()))
    body = b"x" * options.body_size
    if options.body:
        try:
            body = Path(options.body).read_bytes()
        except OSError as error:
            raise ConfigError(f"--body {options.body}: {error.strerror}") from None
    return Plan(
        options.url, connections=options.connections, seconds=options.seconds, requests=options.requests,
        rate=options.rate, pipeline=options.pipeline, close=options.close, idle=options.idle, method=options.method,
        fields=tuple(fields), browser=options.browser, body=body, size=options.size or 64, warm_up=options.warm_up,
        timeout=options.timeout, expect=options.expect, expect_bytes=options.expect_bytes,
    )  # fmt: skip


def text(result: Result) -> str:
    """A result for people."""
    latency = result.latency
    lines = [
        f"{result.url}: {result.requests:,} answers in {result.seconds:.2f} s over {result.connections:,} connections",
        f"  rate      {result.rate:,.0f} a second, {result.bytes / max(result.seconds, 1e-9) / 1e6:,.1f} MB/s received",
        f"  latency   {'from when each was due' if result.mode == 'rate' else 'from when each was sent'}: "
        + ", ".join(f"{name} {seconds(value)}" for name, value in latency.document().items()),
        f"  client    {result.build}, {result.busy:.0%} of a core",
    ]
    if result.idle:
        lines.append(f"  idle      {result.idle:,} connections, {result.idle_closed:,} closed by the server")
    if result.late or result.unsent:
        lines.append(f"  late      {result.late:,} sent after their time, {result.unsent:,} not sent before the end")
    lines += [
        f"  errors    {count:,} {kind}: {result.details.get(kind, '')}"
        for kind, count in result.errors.items()
        if count
    ]
    if result.client_bound:
        lines.append("  The client was the limit, or close to it: the server may do more than this.")
    if result.interrupted:
        lines.append("  Interrupted: this is what was measured until then.")
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration with a unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = parser().parse_args(arguments)
    try:
        result = run(plan_of(options))
    except StokerError as error:
        print(f"stoker load: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(json.dumps(result.document(options.histogram)) if options.json else text(result))
    if result.interrupted:
        return 130
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
