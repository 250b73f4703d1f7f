"""The data plane beside its peers: one interleaved run, requests and SSE chunks per CPU-second of the router.

The router has one core for itself; the load client and the simulated vLLM replicas share another one.
"""
