"""zmtp."""
