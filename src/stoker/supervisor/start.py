"""How this program was started.

What it does later (--chdir, an env file) must not change how its options are read again, or how it is started again.
"""

import contextlib
import os
from collections.abc import Iterator


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it has been removed; there is no place to come back to but the root
        return "/"


DIRECTORY = _directory()
ENVIRONMENT = dict(os.environ)


@contextlib.contextmanager
def there() -> Iterator[None]:
    """Inside, the working directory is the one that the program was started in. Raises OSError when it is gone."""
    here = _directory()
    os.chdir(DIRECTORY)
    try:
        yield
    finally:
        os.chdir(here)
