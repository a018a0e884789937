"""Chapter 1's classifiers that learn nothing by steps: nearest mean and neighbours.

All in NumPy. Softmax regression, which learns by steps, lives with the layers and
steps that it is made of, in scratch.py.
"""

import numpy as np

Array = np.ndarray


def nearest_mean(x: Array, labels: Array, queries: Array) -> Array:
    """Return the class whose mean image is nearest, int64 (Q,), for each query.

    `x` is (N, D) with labels int (N,) of all classes 0, 1, …; `queries` is (Q, D).
    Taught in chapter 1.
    """
    means = np.stack([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    distances = [((queries - mean) ** 2).sum(axis=1) for mean in means]
    return np.argmin(distances, axis=0)


def nearest(x: Array, queries: Array, count: int) -> Array:
    """Return the places in x (N, D) of the `count` rows nearest to each query (Q, D).

    The result is int64 (Q, count), the nearest first. Taught in chapter 1.
    """
    squares = (x**2).sum(axis=1)  # |x|², (N,)
    found = []
    for some in np.array_split(queries, max(1, len(queries) // 500)):
        distance = squares - 2 * some @ x.T  # |q - x|² less |q|², (500, N)
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distance, near, axis=1).argsort(axis=1)
        found.append(np.take_along_axis(near, order, axis=1))
    return np.concatenate(found)


def vote(labels: Array) -> Array:
    """Return the most frequent class in each row of int labels (Q, k).

    Of classes with equally many votes, the one with the lowest number wins.
    Taught in chapter 1.
    """
    return np.eye(10)[labels].sum(axis=1).argmax(axis=1)
