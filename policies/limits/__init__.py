"""Whether a request may come in now, and how much of what it may use."""
