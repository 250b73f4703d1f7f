"""Turnout acts here: sockets, files, clocks and signals around the decisions of `policies`."""
