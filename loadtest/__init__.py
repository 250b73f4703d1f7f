"""The same policies under load: simulated engines, traffic, benchmarks and the demo."""
