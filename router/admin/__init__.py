"""The admin listener: metrics, status, and the verbs of operators."""
