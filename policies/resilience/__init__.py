"""What follows a failure: who is tried again, who is left alone, and for how long."""
