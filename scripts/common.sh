# Shared by the scripts, which source it: finds a Python, makes .venv, and installs what is missing in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'stoker: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# The first Python that is 3.11 or later and can make a virtual environment; $PYTHON, if set, is asked first.
find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.11 or later with venv and ensurepip was found (Debian: apt install python3 python3-venv)." \
        "Another one can be named: PYTHON=/path/to/python $0"
}

# install EXTRAS: this checkout, editable, with these extras, into .venv. Nothing is done while what decides it is the same:
# the project's metadata, the sources that are compiled, the compiler, and what is installed already.
install() {
    local python=.venv/bin/python stamp=.venv/stoker.stamp now done=
    if ! "$python" -c 'import pip' 2>/dev/null; then
        local found
        found=$(find_python)
        say "making .venv with $found"
        "$found" -m venv --clear .venv || die "$found cannot make .venv: see above"
    fi
    now=$({
        sha256sum pyproject.toml setup.py
        "$python" -c 'import sys; print(sys.version)'
        echo "${CC:-}" "$(command -v "${CC:-cc}" gcc clang || true)"
        find src -name '*.pxd' | LC_ALL=C sort | while read -r file; do sha256sum "$file" "${file%.pxd}.py"; done
    } | sha256sum)
    [[ ! -f $stamp ]] || done=$(<"$stamp")
    [[ $done == "$now"* ]] || done=$now # else something has changed since: nothing counts as installed
    if [[ $done != *" [$1]"* && $done != *" [dev]"* ]]; then # dev has everything in it
        say "installing stoker[$1] into .venv"
        "$python" -m pip install --quiet --editable ".[$1]" || die "pip could not install stoker[$1]: see above"
        echo "$done [$1]" >"$stamp"
    fi
    say "$("$python" -c 'from stoker import build; print(build.describe())')"
}

# packages COMMAND:PACKAGE...: have apt install the packages whose commands are not there, and say what it could not do.
packages() {
    local one missing=() sudo=()
    for one in "$@"; do
        command -v "${one%%:*}" >/dev/null || missing+=("${one##*:}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then sudo=(sudo -n); fi
    say "installing ${missing[*]} with apt"
    if ! command -v apt-get >/dev/null ||
        ! { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${missing[@]}"; } >&2; then
        die "apt could not install ${missing[*]}, which the tests need: install them by hand"
    fi
}
