"""One request's way, from the exchange to its outcome."""
