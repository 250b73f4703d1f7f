"""Python's collector of cyclic garbage, tuned for a process that serves."""

import gc

_THRESHOLDS = (50_000, 20, 50)
"""Streams make few cycles; the default thresholds would look for them several times a second."""


def spare_what_is_loaded() -> None:
    """What is there now stays to the end: it is not looked at again, so what a parent shares stays shared."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
