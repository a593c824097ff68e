"""Protocols, metrics and uncertainty: from models and splits to the numbers of a comparison."""
