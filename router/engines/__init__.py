"""The engines' dialects: bytes to values and back. Nothing here opens a socket."""
