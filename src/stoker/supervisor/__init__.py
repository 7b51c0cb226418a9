"""The master: it binds, forks workers, watches them, and never serves a request itself."""

from collections.abc import Callable

from stoker.config import Config
from stoker.net.descriptors import guard

__all__ = ["guard", "run"]


def run(config: Config, reload_config: Callable[[], Config] | None = None) -> int:
    """Serve as `config` says, in this process and its workers, until told to stop; return the exit status.

    :param reload_config: reads the configuration again for a reload; raises ConfigError if it is wrong
    :raises ConfigError: an option that cannot be had here
    :raises BootError: an address that cannot be listened on, a pid file of a running server
    """
    from stoker import worker
    from stoker.supervisor.master import Master

    worker.require(config)
    return Master(config, worker.run, worker.preload, worker.introduce, reload_config).run()
