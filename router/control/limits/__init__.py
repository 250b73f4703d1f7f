"""Where buckets live: in this process, in memory shared by its workers, or in Redis."""
