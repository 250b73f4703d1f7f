"""Observers: they count and write what happened; the core never calls an instrument."""
