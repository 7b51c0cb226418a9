"""Fuzz the interpreted parser with atheris: `./scripts/fuzz [ARGUMENTS]`, or `python -m tests.fuzz [ARGUMENTS]`.

The arguments are those of libFuzzer: `-max_total_time=60` seconds, `-runs=100000`, a folder to keep what was found
interesting, a file to try again. With none of them it runs for 60 seconds. It begins with the cases of the tests.
Bytes of which something does not hold are left in a file `crash-*`; exit status 0 only when there are none.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import FunctionType, ModuleType

os.environ["STOKER_INTERPRETED"] = "1"  # atheris sees Python code alone

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed here: ./scripts/fuzz installs it (pip install atheris)")

from tests.fuzz.target import check, seeds

from stoker.http import body, grammar, request, scan

WORDS = [
    *["GET ", "POST ", "OPTIONS * ", "CONNECT ", "http://", "https://", " HTTP/1.1", " HTTP/1.0", " HTTP/2.0"],
    *["\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "\\x0a", "\\x0d", "\\x00", "\\x09", ": ", " :", ", ", "_"],
    *["Host", "Content-Length", "Transfer-Encoding", "chunked", "Connection", "close", "keep-alive", "Expect"],
    *["100-continue", "0\\x0d\\x0a\\x0d\\x0a", "ffffffffffffffff", "18446744073709551616", ";a=\\x22b\\x22", "[::1]"],
]


def instrument(module: ModuleType) -> None:
    """Have atheris watch every function and method of the module.

    Its import hook would not do: with STOKER_INTERPRETED Stoker has its own, since a compiled module may lie beside.
    """
    for thing in list(vars(module).values()):
        for one in vars(thing).values() if isinstance(thing, type) else (thing,):
            if isinstance(one, FunctionType) and one.__module__ == module.__name__:
                atheris.instrument_func(one)


def main() -> None:
    """Write the seeds and the words to a folder of our own, then let libFuzzer run."""
    for module in (body, grammar, request, scan):
        instrument(module)
    arguments = sys.argv[1:]
    bounded = any(one.startswith(("-runs=", "-max_total_time=")) for one in arguments)
    again = any(Path(one).is_file() for one in arguments)
    with tempfile.TemporaryDirectory(prefix="stoker-fuzz-") as folder:
        words = Path(folder, "words")
        words.write_text("".join(f'"{word}"\n' for word in WORDS), "ascii")
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            Path(corpus, f"case-{number}").write_bytes(seed)
        if not bounded and not again:
            arguments.append("-max_total_time=60")
        folders = [] if again else [str(corpus)]  # libFuzzer writes to the first folder that is named
        atheris.Setup([sys.argv[0], f"-dict={words}", "-max_len=4096", *arguments, *folders], check)
        atheris.Fuzz()


main()
