"""Turnout decides here: pure policies. No I/O, no clock, no global chance; `now` and `Random` are handed in."""
