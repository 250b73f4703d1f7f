"""Front ends: what turns a connection into exchanges."""
