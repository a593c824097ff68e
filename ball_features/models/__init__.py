"""Stage 2: embeddings to classifiers, all scikit-learn estimators."""
