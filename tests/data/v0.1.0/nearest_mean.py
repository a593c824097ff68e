"""An estimator of somebody else: no model of `ball fit`, so that a bundle keeps it by joblib."""

import numpy as np


class NearestMean:
    """Class probabilities by the distance to the mean of each class."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == label].mean(0) for label in self.classes_])
        return self

    def predict_proba(self, X):
        closeness = np.exp(-np.linalg.norm(X[:, None] - self.means_, axis=2))
        return closeness / closeness.sum(1, keepdims=True)
