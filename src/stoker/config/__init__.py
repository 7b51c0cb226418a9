"""Options: `Config` holds them, checked; `OPTIONS` is the table that the rest is made from."""

from stoker.config.table import DEFAULTS, OPTIONS, Config, Option

__all__ = ["DEFAULTS", "OPTIONS", "Config", "Option"]
