"""Becoming somebody else: --user and --group."""

import grp
import os
import pwd
from dataclasses import dataclass

from stoker.config import Config
from stoker.errors import ConfigError


@dataclass(frozen=True)
class Identity:
    """Whom a process is to run as. `groups` are the supplementary ones, credentials(7)."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """Give up what this process is, for good: real, effective and saved ids. Raises OSError."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def identity(config: Config) -> Identity | None:
    """Whom `--user` and `--group` name; None: stay who we are. Without `--group` it is the user's own group.

    :raises ConfigError: a number without a user when no group is given, or another user than ours without being root
    """
    if config.user is None and config.group is None:
        return None
    uid, gid, name = os.geteuid(), os.getegid(), None
    if config.user is not None:
        try:
            entry = pwd.getpwuid(int(config.user)) if config.user.isdecimal() else pwd.getpwnam(config.user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
        except KeyError:
            if not config.user.isdecimal() or config.group is None:
                raise ConfigError(
                    f"--user {config.user}: there is no such user, so its group is not known; give --group as well"
                ) from None
            uid = int(config.user)
    if config.group is not None:
        try:
            gid = int(config.group) if config.group.isdecimal() else grp.getgrnam(config.group).gr_gid
        except KeyError:
            raise ConfigError(f"--group {config.group}: there is no such group") from None
    groups = tuple(os.getgrouplist(name, gid)) if name is not None else (gid,)
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return None
    if os.geteuid() != 0:
        what = f"--user {config.user}" if config.user is not None else f"--group {config.group}"
        raise ConfigError(f"{what}: only root can become somebody else; start as root, or leave the option out")
    return Identity(uid, gid, groups)
