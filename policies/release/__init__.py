"""Which version: splits that keep a session where it is, and releases that are decided by evidence."""
