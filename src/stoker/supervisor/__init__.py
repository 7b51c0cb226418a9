"""The master: it binds, forks workers, watches them, and never serves a request itself."""
