"""Plan to training batches. So far: `trainer_plugin.dataset`, which reads a plan's rows from the shards."""
