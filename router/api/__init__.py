"""The clients' dialects: bytes to values and back."""
