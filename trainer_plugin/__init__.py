"""Plan to training batches."""
