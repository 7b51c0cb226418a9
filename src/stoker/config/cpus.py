"""How many CPUs this process may use: its affinity, and the quota of its control group."""

import math
import os
import re
from pathlib import Path


def available(root: Path = Path("/")) -> int:
    """The CPUs of `--workers auto`: at least 1; a quota of one and a half counts as 2.

    The quota is the least one of the process's control group and of the groups above it, in version 2 (`cpu.max`,
    Documentation/admin-guide/cgroup-v2.rst) and version 1 (`cpu.cfs_quota_us`). `root` stands for / in tests.
    """
    count = len(os.sched_getaffinity(0))
    for hierarchy, path in _groups(root):
        for group in (hierarchy / path, *(hierarchy / path).parents):
            if (quota := _quota(group)) is not None:
                count = min(count, math.ceil(quota))
            if group == hierarchy:
                break
    return max(1, count)


def _groups(root: Path) -> list[tuple[Path, str]]:
    """Where the CPU controllers are mounted, and the path of this process's group in each (cgroups(7))."""
    mounts = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found.append((mounts, path.lstrip("/")))
        elif "cpu" in controllers.split(","):
            found += [(mounts / name, path.lstrip("/")) for name in ("cpu", controllers) if (mounts / name).is_dir()]
    return found


def _quota(group: Path) -> float | None:
    """The CPUs that one control group allows, or None where it sets no quota."""
    if match := re.fullmatch(r"(\d+) (\d+)", _read(group / "cpu.max")):
        return int(match[1]) / max(1, int(match[2]))
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():
        return int(quota) / max(1, int(period))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
