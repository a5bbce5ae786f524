"""Samples to a packing plan."""
