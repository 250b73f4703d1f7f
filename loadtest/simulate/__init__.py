"""The shipped policies, unchanged, under virtual time: virtual replicas, traces, faults, reports."""
