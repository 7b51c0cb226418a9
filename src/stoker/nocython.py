"""A stand-in for Cython's module ``cython``, so that running Stoker never needs Cython installed.

A compiled module is an ordinary ``.py`` file whose C types are all in the ``.pxd`` beside it. So the source names one
thing of Cython's: the flag that says which of its two forms runs.
"""

from __future__ import annotations

#: False: only interpreted code imports this. In a compiled module ``cython.compiled`` is a constant, and true.
compiled: bool = False
