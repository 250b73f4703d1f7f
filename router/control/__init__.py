"""What the processes of one router, and several routers, tell each other."""
