"""Turnout decides here. No I/O, no clock, no global chance; `now` and `Random` are handed in."""
