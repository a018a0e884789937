"""The metrics: against scikit-learn and SciPy on random data, and their errors."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from taught import metrics

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")

seeds = st.integers(0, 2**32 - 1)


def answers(seed, classes, count):
    """Labels and predictions; some classes may never occur or never be predicted."""
    generator = np.random.default_rng(seed)
    some = generator.integers(1, classes + 1, 2)
    return [generator.integers(0, high, count) for high in some]


@given(seed=seeds, classes=st.integers(2, 8), count=st.integers(1, 60))
def test_matrix_and_report_agree_with_scikit_learn(seed, classes, count):
    labels, predicted = answers(seed, classes, count)
    matrix = metrics.confusion_matrix(labels, predicted, classes)
    every = np.arange(classes)
    theirs = reference.confusion_matrix(labels, predicted, labels=every)
    assert (matrix == theirs).all()
    report = metrics.classification_report(matrix)
    theirs = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for key, values in zip(("precision", "recall", "f1", "images"), theirs):
        assert np.allclose(report[key], values, rtol=0, atol=1e-12), key


def test_rows_are_the_true_classes():
    matrix = metrics.confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert matrix.tolist() == [[0, 2], [0, 1]]


@pytest.mark.parametrize(
    "labels, predicted, message",
    [
        ([0, 1], [0, 1, 1], "2 labels, and 3 predictions"),
        ([0, 3], [0, 1], "from 0 to 2; these from 0 to 3"),
        ([0, 1], [-1, 1], "these from -1 to 1"),
        ([0.0, 1.0], [0, 1], "integers"),
        ([[0], [1]], [0, 1], r"integers \(N,\)"),
    ],
)
def test_labels_that_are_none_are_named(labels, predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(np.array(labels), np.array(predicted), 3)


def test_no_examples_is_an_error():
    empty = np.array([], int)
    with pytest.raises(ValueError, match="no examples"):
        metrics.confusion_matrix(empty, empty, 3)
    with pytest.raises(ValueError, match="no examples"):
        metrics.reliability(np.array([]), np.array([], bool))


@given(count=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_interval_agrees_with_scipy(count, share):
    correct = round(share * count)
    exact = binomtest(correct, count).proportion_ci(method="wilson")
    low, high = metrics.wilson_interval(correct, count, q=1.959963984540054)
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize("correct, count", [(3, 2), (-1, 5), (0, 0)])
def test_wilson_interval_of_no_share_is_an_error(correct, count):
    with pytest.raises(ValueError, match="is no share"):
        metrics.wilson_interval(correct, count)


def test_bootstrap_interval_has_the_width_of_theory():
    right = np.random.default_rng(0).random(2000) < 0.8
    generator = np.random.default_rng(1)
    low, high = metrics.bootstrap_interval(
        lambda places: right[places].mean(), len(right), generator
    )
    half = 1.96 * right.std() / np.sqrt(len(right))
    expected = right.mean() - half, right.mean() + half
    assert (low, high) == pytest.approx(expected, abs=0.003)


@given(seed=seeds, count=st.integers(1, 200))
def test_mcnemar_agrees_with_scipy(seed, count):
    one, other = np.random.default_rng(seed).random((2, count)) < 0.7
    first, second, p = metrics.mcnemar(one, other)
    assert first - second == one.sum() - other.sum()
    if first + second:
        assert p == pytest.approx(binomtest(first, first + second).pvalue, abs=1e-12)
    else:
        assert p == 1
    with pytest.raises(ValueError, match="answers"):
        metrics.mcnemar(one, np.append(other, True))


def test_softmax_of_huge_logits():
    p = metrics.softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32))
    assert p.dtype == np.float64 and np.allclose(p, [[1, 0], [0.5, 0.5]])


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.15, 1.0])
    right = np.array([True, False, True, True])
    images, sure, share = metrics.reliability(confidence, right, bins=10)
    assert images.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert sure[9] == pytest.approx(2.9 / 3) and share[9] == pytest.approx(2 / 3)
    expected = (0.85 + 3 * abs(2.9 / 3 - 2 / 3)) / 4
    error = metrics.expected_calibration_error(confidence, right, bins=10)
    assert error == pytest.approx(expected)


@pytest.mark.parametrize("value", [1.2, -0.1, np.nan])
def test_confidence_outside_its_range_is_an_error(value):
    with pytest.raises(ValueError, match="not logits"):
        metrics.reliability(np.array([0.5, value]), np.array([True, False]))


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_temperature_undoes_a_known_factor(factor):
    generator = np.random.default_rng(0)
    z = 2 * generator.standard_normal((5000, 4))
    p = metrics.softmax(z)
    labels = (p.cumsum(axis=1) < generator.random((5000, 1))).sum(axis=1)
    assert metrics.fit_temperature(factor * z, labels) == pytest.approx(factor, rel=0.1)


@given(seed=seeds, count=st.integers(2, 80), ties=st.booleans())
def test_average_precision_agrees_with_scikit_learn(seed, count, ties):
    generator = np.random.default_rng(seed)
    scores = generator.random(count)
    if ties:
        scores = scores.round(1)
    relevant = generator.random(count) < 0.4
    relevant[0] = True
    precision, recall, area = metrics.precision_recall(scores, relevant)
    theirs = reference.average_precision_score(relevant, scores)
    assert area == pytest.approx(theirs, abs=1e-12)
    assert recall[-1] == 1 and precision[-1] == pytest.approx(relevant.mean())


def test_average_precision_without_examples_is_an_error():
    with pytest.raises(ValueError, match="recall is not defined"):
        metrics.precision_recall(np.array([0.1, 0.2]), np.zeros(2, bool))


@pytest.mark.parametrize(
    "p, message",
    [
        ([[0.5, 0.4]], "sums to 0.9000, not to 1"),
        ([[1.5, -0.5]], "numbers >= 0"),
        ([0.5, 0.5], r"array \(N, K\)"),
    ],
)
def test_probabilities_that_are_none_are_named(p, message):
    with pytest.raises(ValueError, match=message):
        metrics.check_probabilities(np.array(p))
