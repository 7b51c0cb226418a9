"""The sources run as they are where Cython is not installed."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
sys.modules["cython"] = sys.modules["Cython"] = None
from stoker import nocython
from stoker.http import body, request, response, scan
for module in (body, request, response, scan):
    assert module.cython is nocython, module
    assert module.__file__.endswith(".py"), module
parser = request.RequestParser(request.Limits())
parser.feed(b"POST /a?b HTTP/1.1\\r\\nHost: c\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\nx\\r\\n0\\r\\n\\r\\n")
assert parser.next() == request.REQUEST
writer = response.ResponseWriter()
writer.begin(parser.method, parser.minor, parser.keep_alive)
writer.start("200 OK", [("X", "y")])
sys.stdout.buffer.write(writer.one(parser.body(), response.http_date(0)))
"""


def test_without_cython() -> None:
    variables = {**os.environ, "STOKER_INTERPRETED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, check=True)
    assert child.stdout.endswith(b"X: y\r\nContent-Length: 1\r\n\r\nx")
