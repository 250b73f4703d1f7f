"""`turnout demo`: a mixed fleet, the router in front of it, real traffic, and what became of it."""
