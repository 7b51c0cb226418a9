"""`stoker serve`: find out what is wanted, then let the supervisor do it."""

import json
import os
import sys
import traceback
from collections.abc import Sequence

from stoker import cli, log, worker
from stoker.cli import arguments, gunicorn, toml
from stoker.config import OPTIONS, Config, envfile
from stoker.config.sources import Settings, resolve, suggest
from stoker.errors import BootError, ConfigError


def run(words: Sequence[str]) -> int:
    """Serve until told to stop, or do what is asked for in place of it; return the exit status."""
    outcome = arguments.parse_serve(words)
    if outcome.version:
        cli.say(cli.version())
        return 0
    path = outcome.path or os.environ.get("STOKER_CONFIG")
    if path and gunicorn.is_python(path):
        cli.say(gunicorn.refuse(path))
        raise ConfigError(f"{path} is Python, and options are data here: write the lines above into stoker.toml")
    settings = resolve(outcome.given, os.environ, path)
    config = settings.config
    if config.print_config or config.check_config:
        return inspect(settings)
    require_application(config)
    from stoker import supervisor

    supervisor.guard()
    log.setup(config)
    for warning in settings.warnings:
        log.warning(warning)

    def read_again() -> Config:
        """The options as they are now, for a reload."""
        settings = resolve(outcome.given, os.environ, path)
        require_application(settings.config)
        for warning in settings.warnings:
            log.warning(warning)
        return settings.config

    return supervisor.run(config, read_again)


def require_application(config: Config) -> None:
    """Raise ConfigError when nothing is named that could be served, or what is named looks like a mistyped command."""
    if config.app is None and config.tcp is None:
        raise ConfigError("nothing to serve: name an application (stoker myapp:app) or a handler (--tcp module:name)")
    if isinstance(config.app, str) and config.app.isidentifier():
        near = suggest(config.app, cli.COMMANDS)
        if near and not os.path.exists(config.app + ".py") and not os.path.isdir(config.app):
            raise ConfigError(f"{config.app!r} is no command{near} (an application is named module:name)")


def inspect(settings: Settings) -> int:
    """--print-config and --check-config; with --json one document for both."""
    config = settings.config
    shown = {name: getattr(config, name) for name, option in OPTIONS.items() if not option.command_line_only}
    document: dict[str, object] = {"warnings": settings.warnings}
    if config.print_config:
        document["options"] = {name: {"value": shown[name], "origin": settings.origins[name]} for name in shown}
    for warning in settings.warnings:
        print(f"stoker: {warning}", file=sys.stderr)
    if config.print_config and not config.json:
        cli.say("\n".join(toml.lines(shown, {name: settings.origins[name] for name in shown})))
    if config.check_config:
        require_application(config)
        worker.require(config)
        log.setup(config)
        if status := import_in_child(config):
            return status
        document["importable"] = True
    if config.json:
        cli.say(json.dumps(document))
    elif config.check_config:
        cli.say(f"{config.app or config.tcp}: the options are right, and the application can be imported")
    return 0


def import_in_child(config: Config) -> int:
    """Import the application in a child, as a worker would do it; return the exit status, 3 when it cannot be imported.

    In a child, because importing may start threads, patch the standard library or end the process.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = cli.NO_BOOT
        try:
            os.dup2(2, 1)  # standard output is for the one document
            if config.chdir is not None:
                os.chdir(config.chdir)
            if config.env_file is not None:
                envfile.load(config.env_file)
            worker.prepare(config)
            worker.load_application(config)
            status = 0
        except BootError as error:
            print(f"stoker: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        return 0
    if status != cli.NO_BOOT:
        print(f"stoker: importing the application ended the process (status {status})", file=sys.stderr)
    return cli.NO_BOOT
