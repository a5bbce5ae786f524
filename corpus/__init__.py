"""Documents to pages to shards, and the `corpus` command line."""

__version__ = "0.1.0"
