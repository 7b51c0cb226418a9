"""Stoker side by side with other servers, and with the same in C: `./scripts/bench`."""
