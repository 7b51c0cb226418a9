"""The servers that the tests of this folder share: one for each configuration, for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.apps.server import ALL, Server, serving
from tests.apps.site import Site, count_sendfile


class Servers:
    """Started when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.running: dict[str, Server] = {}

    def __getitem__(self, configuration: str) -> Server:
        server = self.running.get(configuration)
        if server is None or not server.alive():
            notes = self.folder / f"{configuration}.notes"
            notes.touch()
            site = Site(str(notes))
            server = self.stack.enter_context(serving(configuration, site, before=lambda: count_sendfile(site)))
            server.notes = notes
            self.running[configuration] = server
        return server


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    with servers.stack:
        yield servers


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    """A worker of each configuration, serving `site.Site`."""
    return servers[request.param]
