"""The files of a WSGI environ: ``wsgi.input``, ``wsgi.errors``, ``wsgi.file_wrapper``."""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from stoker import log
from stoker.connection import FileSlice
from stoker.errors import StokerError


class BodyError(StokerError, OSError):
    """The body cannot be read to its end: it is malformed, too large, too slow, or the client left."""


class Errors:
    """``wsgi.errors``: records for the server's log (PEP 3333, "Input and Error Streams").

    What one write hands over is one record, so that a traceback stays together; a line that comes in pieces is
    kept until it ends.

    :ivar rest: what is kept
    """

    def __init__(self) -> None:
        self.rest = ""

    def write(self, text: str) -> int:
        """Log the lines that ``text`` ends, and keep what follows the last; the number of characters taken."""
        ended, newline, rest = text.rpartition("\n")
        if newline:
            log.error(self.rest + ended)
            self.rest = rest
        else:
            self.rest += text
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write ``lines``, as one record."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Log what is kept, though its line has not ended."""
        if self.rest:
            rest, self.rest = self.rest, ""
            log.error(rest)


class FileWrapper:
    """``wsgi.file_wrapper``: a file as a response, sent by sendfile(2) where it is a regular file.

    :param file: has ``read(size)``, and perhaps ``close``
    :param block_size: bytes a read, where it is no regular file
    """

    def __init__(self, file: Any, block_size: int = 65536) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.file.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    def part(self) -> FileSlice | None:
        """The rest of the file from where it stands, by a descriptor of its own; None if it is no regular file.

        Only a plain binary file will do: what a GzipFile reads is not what its descriptor holds. Raises OSError.
        """
        file: Any = self.file.file if isinstance(self.file, tempfile._TemporaryFileWrapper) else self.file
        raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
        if type(raw) is not io.FileIO or raw.closed:
            return None
        status = os.fstat(raw.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        if type(file) is io.BufferedRandom:
            file.flush()
        offset = file.tell()
        return FileSlice(os.dup(raw.fileno()), offset, max(0, status.st_size - offset))


class Input:
    """``wsgi.input`` where blocking is allowed: the body as it comes, never a byte past it.

    :param more: gives the next piece of the body, waited for, and b"" at its end; raises BodyError
    """

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._buffer = b""

    def read(self, size: int | None = -1) -> bytes:
        """At most ``size`` bytes, fewer only at the end of the body; all of it for None or a negative size."""
        if size is None or size < 0:
            size = sys.maxsize
        pieces = [self._buffer]
        have = len(self._buffer)
        self._buffer = b""
        while have < size and (piece := self._more()):
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        if have > size:
            self._buffer = data[size:]
            data = data[:size]
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """Up to and with the next line feed, at most ``size`` bytes."""
        limit = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        have = 0
        while have < limit:
            if not self._buffer:
                self._buffer = self._more()
                if not self._buffer:
                    break
            end = self._buffer.find(b"\n") + 1
            taken = min(end or len(self._buffer), limit - have)
            pieces.append(self._buffer[:taken])
            self._buffer = self._buffer[taken:]
            have += taken
            if taken == end:
                break
        return b"".join(pieces)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """The lines that are left; no further one once ``hint`` bytes have been read."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Input:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        """Forget what was read ahead."""
        self._buffer = b""
