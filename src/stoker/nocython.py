"""A stand-in for Cython's ``cython`` module, so that running Stoker interpreted never needs Cython installed.

A compiled module is an ordinary ``.py`` file whose C types live in the ``.pxd`` beside it, so very little of ``cython``
is ever named in the source: the flag that says which of the two forms runs, and a few marks that mean something to the
compiler alone. Interpreted they do nothing, which is what they do here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: False: this module is only ever imported by interpreted code. A compiled module sees its own constant, true.
compiled: bool = False


def _mark(thing: T) -> T:
    """Give back what was decorated, as it is."""
    return thing


cclass = cfunc = ccall = final = inline = nogil = _mark


def locals(**types: Any) -> Callable[[T], T]:  # noqa: A001 - the name is Cython's
    """Stand for the decorator that gives C types to local variables."""
    return _mark


def returns(type_: Any) -> Callable[[T], T]:
    """Stand for the decorator that gives a C type to what a function returns."""
    return _mark


def exceptval(value: Any = None, *, check: bool = True) -> Callable[[T], T]:
    """Stand for the decorator that says which value means that an exception was raised."""
    return _mark


def cast(type_: Any, value: T, *, typecheck: bool = False) -> T:
    """Stand for a C cast: the object itself."""
    return value
