"""Stage 1: images to embeddings."""
