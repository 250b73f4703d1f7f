"""What is known of the replicas, and who finds it out."""
