"""Sockets: what the server listens on, and the descriptors it may use."""
