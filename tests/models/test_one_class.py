"""The record of batches of one class: what it accepts, how records join, what follows from it."""

import math

import pytest

from ball_features.models.one_class import OneClassRecord


def test_records_join_by_their_batches():
    joined = OneClassRecord.joined([OneClassRecord(4, 3, 0.5, 0.25), None, OneClassRecord(12, 12, 0.9, 0.65)])
    assert joined is not None
    assert (joined.batches, joined.adapted) == (16, 15)
    assert (joined.without, joined.auto) == pytest.approx((0.8, 0.55))
    assert OneClassRecord.joined([None]) is None
    whole = OneClassRecord.joined([OneClassRecord(1, 1, 1.0, 1.0)] * 7)
    assert whole is not None and whole.without == 1


@pytest.mark.parametrize(("without", "auto", "tells"), [(0.4, 0.34, False), (0.4, 0.36, True), (0.4, 0.6, True)])
def test_five_points_decide(without, auto, tells):
    assert OneClassRecord(3, 3, without, auto).tells == tells


def test_the_words_have_the_numbers():
    said = OneClassRecord(12, 11, 0.404, 0.278).figures
    assert said == (
        "on 12 batches of one class from sites left out, adapting cost 12 points (accuracy 40 % without, 28 % with; "
        "adapted to 11)"
    )
    assert "on 1 batch of one class" in OneClassRecord(1, 0, 0.5, 0.5).figures
    assert "adapting gained 3 points" in OneClassRecord(2, 2, 0.8, 0.83).figures


@pytest.mark.parametrize(
    "values",
    [(0, 0, 0.5, 0.5), (2, 3, 0.5, 0.5), (2, -1, 0.5, 0.5), (True, True, 0.5, 0.5), (2.0, 1, 0.5, 0.5),
     (10**400, 1, 0.5, 0.5), (2, 1, 1.5, 0.5), (2, 1, 0.5, math.nan), (2, 1, "a", 0.5), (2, 1, None, 0.5),
     (2, 1, True, 0.5), ([], 1, 0.5, 0.5)],
)  # fmt: skip
def test_values_that_are_none_are_refused(values):
    with pytest.raises((ValueError, TypeError)):
        OneClassRecord(*values)
