"""The build: compiles the modules of MODULES where that works, and says in one line where it does not.

Everything else about the package is in pyproject.toml.
"""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

MODULES = [
    "stoker.stats",
    "stoker.connection",
    "stoker.http.scan",
    "stoker.http.request",
    "stoker.http.body",
    "stoker.http.response",
    "stoker.engines.accept",
    "stoker.engines.base",
    "stoker.engines.timers",
    "stoker.engines.readiness",
    "stoker.engines.epoll",
    "stoker.engines.blocking",
    "stoker.engines.asyncio",
    "stoker.engines.greenlet",
    "stoker.engines.gevent",
    "stoker.engines.watcher",
    "stoker.net.ring",
    "stoker.engines.uring",
    "stoker.apps.http",
    "stoker.apps.wsgi",
    "stoker.load.histogram",
    "stoker.load.answers",
    "stoker.load.driver",
]
DIRECTIVES = {"language_level": "3", "annotation_typing": False, "boundscheck": False, "wraparound": False}
FLAGS = ["-O2", "-g0"]
FAILURES = (BaseError, CCompilerError, OSError)  # a compiler that is not there is an OSError to some setuptools

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "src" / "stoker"

specification = importlib.util.spec_from_file_location("build_of_stoker", PACKAGE / "build.py")
build = importlib.util.module_from_spec(specification)
specification.loader.exec_module(build)


def wanted():
    """The modules as extensions, before they are translated; one whose file is not there is left out."""
    paths = {name: Path("src", *name.split(".")).with_suffix(".py") for name in MODULES}
    return [Extension(name, [str(path)]) for name, path in paths.items() if (ROOT / path).is_file()]


def translate(extensions):
    """Translate the modules to C; return them as extensions, and why there are none ("" when there are)."""
    try:
        from Cython import __version__ as version
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError
    except ImportError:
        return [], "Cython is not installed"
    try:
        made = cythonize(
            extensions, build_dir="build/c", include_path=["src"], compiler_directives=DIRECTIVES, quiet=True
        )
    except CompileError as error:
        return [], f"Cython {version} cannot translate the sources ({error})"
    for extension in made:
        extension.optional = True  # on the result: cythonize() drops it from what it is given
        extension.extra_compile_args = FLAGS
    return made, ""


class Build(build_ext):
    """Compile all the modules or none: one that is compiled cannot share C types with one that is not."""

    def run(self):
        """Compile, then write the record that the package compares its sources with."""
        originals = {extension.name: extension for extension in self.extensions}
        self.extensions, self.reason = translate(self.extensions)
        for (
            extension
        ) in self.extensions:  # translation makes new objects: they lack what finalize_options() gave the old
            vars(extension).update({k: v for k, v in vars(originals[extension.name]).items() if k.startswith("_")})
        self.parallel = self.parallel or os.cpu_count()
        super().run()
        folder = PACKAGE if self.inplace else Path(self.build_lib, "stoker")
        names = [extension.name for extension in self.extensions]
        for name, path in build.binaries(folder).items():
            if name not in names:
                path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        record = {"modules": {name: build.fingerprint(name, PACKAGE) for name in names}, "reason": self.reason}
        (folder / build.RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        if self.reason:
            print(f"stoker: nothing is compiled, so it will run interpreted: {self.reason}", file=sys.stderr)

    def build_extensions(self):
        """Compile the extensions if the C compiler can compile anything at all."""
        self.reason = self.no_compiler()
        if not self.reason:
            super().build_extensions()
        if self.reason:
            self.extensions = []

    def build_extension(self, extension):
        """Compile one extension, and remember when that fails: the others go on, but none of them is used then."""
        try:
            super().build_extension(extension)
        except FAILURES:
            self.reason = f"the C compiler failed on {extension.name}"

    def no_compiler(self):
        """Why a file that only includes Python.h cannot be compiled; "" when it can."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("#include <Python.h>\n", "ascii")
            try:
                self.compiler.compile([str(source)], output_dir=folder)
            except FAILURES:
                return f"there is no working C compiler with Python.h: {self.compiler.compiler[0]} failed"
        return ""


setup(ext_modules=wanted(), cmdclass={"build_ext": Build})
