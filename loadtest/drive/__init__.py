"""What the simulator says, tried over real sockets in real time: engines, a router process, clients."""
