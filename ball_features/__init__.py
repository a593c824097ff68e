"""B-ALL subtypes on blood smears: frozen embeddings cached once, heads and baselines compared honestly."""

__version__ = "0.1.0"
