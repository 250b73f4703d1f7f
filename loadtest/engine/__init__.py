"""Simulated engines: one scheduler, KV cache and latency model behind four wire dialects, with scripted
faults."""
