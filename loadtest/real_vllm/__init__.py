"""Routers in front of real vLLM replicas on this machine: prefix hits by their own counters, first tokens.

The model is random and small, the caches are small too: only placement and caching are like a real fleet's.
"""
