"""Simulated engines: one scheduler, KV cache and latency model, four wire dialects, scripted faults."""
