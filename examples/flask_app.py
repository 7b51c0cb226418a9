# stoker examples.flask_app:app
"""Flask: pages, a session, a stream, an upload, a file and an error.

Flask's log goes to `wsgi.errors`, so the traceback of /error is in Stoker's log.
"""

import hashlib
import os
from collections.abc import Iterator

from flask import Flask, Response, request, send_file, session, stream_with_context

app = Flask(__name__)
# A key of your own, the same in all workers: sessions are signed with it.
app.secret_key = os.environ.get("SECRET_KEY", "for this example only")

PAGE = """<!doctype html><title>Flask on Stoker</title>
<h1>Flask on Stoker</h1>
<p>Visits in this session: {visits}</p>
<p><a href="stream">stream</a> <a href="download">download</a> <a href="error">error</a></p>
<form method="post" action="upload" enctype="multipart/form-data">
<input type="file" name="file"><button>Upload</button></form>
"""


@app.get("/")
def index() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return PAGE.format(visits=session["visits"])


@app.get("/stream")
def stream() -> Response:
    """A response whose length nobody knows beforehand: it is sent chunk by chunk."""

    def lines() -> Iterator[str]:
        for number in range(int(request.args.get("lines", "10"))):
            yield f"line {number}\n"

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.post("/upload")
def upload() -> dict[str, object] | tuple[dict[str, object], int]:
    file = request.files.get("file")
    if file is None:
        return {"error": "there is no file in the form"}, 400
    digest = hashlib.sha256()
    size = 0
    while piece := file.stream.read(65536):
        digest.update(piece)
        size += len(piece)
    return {"name": file.filename, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download")
def download() -> Response:
    """This file. `send_file` uses `wsgi.file_wrapper`, so the kernel sends it (sendfile(2))."""
    return send_file(__file__, mimetype="text/x-python", as_attachment=True)


@app.get("/error")
def error() -> str:
    raise RuntimeError("the error that was asked for")
