"""The shipped policies under virtual time: the simulated engines' own scheduler and cache, no sockets."""
