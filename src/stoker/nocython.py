"""A stand-in for Cython's module ``cython``, so that running Stoker never needs Cython installed.

A compiled module is an ordinary ``.py`` file whose C types are in the ``.pxd`` beside it. So the source names of
Cython's only the flag that says which of its two forms runs, and the types of a generator's locals, which a ``.pxd``
cannot give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

#: False: only interpreted code imports this. In a compiled module ``cython.compiled`` is a constant, and true.
compiled: bool = False


def _locals(**types: object) -> Callable[[Function], Function]:
    """Types mean nothing here."""
    return lambda function: function


# Cython's own names, which are also Python's.
globals().update(locals=_locals, bint=None, double=None, int=None)
