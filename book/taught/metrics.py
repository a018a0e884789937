"""How a classifier is judged: counts, shares, intervals, and how sure it is.

All functions take NumPy arrays of recorded answers; nothing here runs a network.
Networks come from resnet.py, and recorded answers from results/.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom

Array = np.ndarray


# ---------------------------------------------------------------- counts and shares


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """Count how often class i (row) was taken for class j (column): int64 (K, K).

    `labels` and `predicted` are integers (N,) from 0 to classes - 1.
    Raises ValueError if they are not. Taught in chapter 9.
    """
    check_classes(labels, classes)
    check_classes(predicted, classes)
    if len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels, and {len(predicted)} predictions")
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def classification_report(matrix: Array) -> dict[str, Array]:
    """Return precision, recall and F1 by class, (K,) each, from a confusion matrix.

    Where a share would be 0 / 0 (a class that was never predicted, or never occurred),
    it is 0. Taught in chapter 9.
    """
    right, occurred, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": share(right, predicted),
        "recall": share(right, occurred),
        "f1": share(2 * right, occurred + predicted),
        "images": occurred,
    }


def share(part: Array, whole: Array) -> Array:
    """Divide, and return 0 where the whole is 0. Taught in chapter 9."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


# ---------------------------------------------------------------- how sure are we


def wilson_interval(correct: int, count: int, q: float = 1.96) -> tuple[float, float]:
    """Return the ends of Wilson's interval for a share of `correct` in `count`.

    q = 1.96 gives a confidence of 95 %. Raises ValueError unless
    0 <= correct <= count and count > 0. Source: Wilson (1927). Taught in chapter 9.
    """
    if not 0 <= correct <= count or count == 0:
        raise ValueError(f"{correct} of {count} is no share")
    a, N = correct / count, count
    centre = (a + q**2 / (2 * N)) / (1 + q**2 / N)
    half = q / (1 + q**2 / N) * np.sqrt(a * (1 - a) / N + q**2 / (4 * N**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    statistic: Callable[[Array], float],
    count: int,
    generator: np.random.Generator,
    repeats: int = 1000,
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of a statistic over resampled images.

    `statistic` takes the places int64 (count,) of images drawn with replacement.
    Source: Efron (1979). Taught in chapter 9.
    """
    values = [statistic(generator.integers(0, count, count)) for _ in range(repeats)]
    return tuple(np.percentile(values, [2.5, 97.5]))


def mcnemar(right: Array, other_right: Array) -> tuple[int, int, float]:
    """Compare two classifiers on the same images by McNemar's exact test.

    Takes bool (N,) each. Returns how many images only the first and only the second
    got right, and the probability of so uneven a split if both are equally good.
    Source: McNemar (1947). Taught in chapter 9.
    """
    if len(right) != len(other_right):
        raise ValueError(f"{len(right)} answers, and {len(other_right)}")
    first, second = int((right & ~other_right).sum()), int((~right & other_right).sum())
    p_value = 2 * binom.cdf(min(first, second), first + second, 0.5)
    return first, second, min(1.0, float(p_value))


# ---------------------------------------------------------------- how sure is it


def softmax(logits: Array) -> Array:
    """Turn logits (N, K) into probabilities float64 (N, K). Taught in chapter 9."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def reliability(confidence: Array, right: Array, bins: int = 15) -> tuple[Array, ...]:
    """Return, for bins of equal width: images, mean confidence, share of right ones.

    `confidence` is float (N,) in [0, 1], `right` bool (N,). The mean and the share of
    an empty bin are 0. Taught in chapter 9.
    """
    check_confidence(confidence)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    images = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, minlength=bins)
    return images, share(sure, images), share(np.bincount(place, right, bins), images)


def expected_calibration_error(
    confidence: Array, right: Array, bins: int = 15
) -> float:
    """Return the mean distance of confidence and accuracy over bins, by their images.

    Source: Guo et al. (2017), equation 3. Taught in chapter 9.
    """
    images, sure, accuracy = reliability(confidence, right, bins)
    return float((images * np.abs(sure - accuracy)).sum() / images.sum())


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the T > 0 for which softmax(logits / T) has the least cross-entropy.

    Source: Guo et al. (2017), section 4.2. Taught in chapter 9.
    """
    check_classes(labels, logits.shape[1])
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        z = logits.astype(np.float64) / np.exp(log_t)
        z = z - z.max(axis=1, keepdims=True)
        return (np.log(np.exp(z).sum(axis=1)) - z[rows, labels]).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def precision_recall(scores: Array, relevant: Array) -> tuple[Array, Array, float]:
    """Return precision, recall, and average precision, as the threshold falls.

    `scores` is float (N,), `relevant` bool (N,) with at least one True, else
    ValueError. Equal scores enter together. Taught in chapter 9.
    """
    if not relevant.any():
        raise ValueError("no image is of the class: recall is not defined")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last of equal scores
    found = relevant[order].cumsum()[last]
    precision = found / (np.flatnonzero(last) + 1)
    recall = found / relevant.sum()
    return precision, recall, float((np.diff(recall, prepend=0) * precision).sum())


# ---------------------------------------------------------------- checks


def check_classes(labels: Array, classes: int) -> None:
    """Raise ValueError unless labels are integers (N,) from 0 to classes - 1, N > 0."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"classes are integers (N,), not {labels.dtype} {labels.shape}"
        )
    if len(labels) == 0:
        raise ValueError("there are no examples")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"classes run from 0 to {classes - 1}; these from {found}")


def check_confidence(confidence: Array) -> None:
    """Raise ValueError unless these are numbers in [0, 1], and at least one."""
    if len(confidence) == 0:
        raise ValueError("there are no examples")
    if not (confidence >= 0).all() or not (confidence <= 1).all():
        raise ValueError("confidence lies in [0, 1]: pass probabilities, not logits")


def check_probabilities(p: Array) -> None:
    """Raise ValueError unless the rows of p (N, K) are probabilities that sum to 1."""
    if p.ndim != 2 or len(p) == 0 or not (p >= 0).all():
        raise ValueError("probabilities are an array (N, K) of numbers >= 0, N > 0")
    sums = p.sum(axis=1)
    if np.abs(sums - 1).max() > 1e-6:
        worst = sums[np.abs(sums - 1).argmax()]
        raise ValueError(f"a row of probabilities sums to {worst:.4f}, not to 1")
