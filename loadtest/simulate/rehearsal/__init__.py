"""A release before it happens: a trace through the real split, lifecycle and analysis under virtual time."""
