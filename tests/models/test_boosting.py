"""What is not scikit-learn's own among the baselines keeps scikit-learn's conventions."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from ball_features.models.boosting import XGBoost


@parametrize_with_checks([XGBoost()])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
