"""Predictions to numbers: protocols, metrics, uncertainty."""
