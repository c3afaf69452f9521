"""Caption sources, the embedding pass, and the embedding store."""
