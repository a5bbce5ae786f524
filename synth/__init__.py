"""Pages to questions."""
