"""Vectors of two spaces in one plane."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def principal_plane(
    groups: Sequence[Float[np.ndarray, "_ _"]],
) -> tuple[list[Float[np.ndarray, "_ 2"]], tuple[float, float]]:
    """Groups of vectors on the first two principal axes of them all, and each axis's share of their variance.

    Vectors of a narrower space get zeros behind them, which leaves their lengths, distances and angles as they are.
    Signs are such that the largest coordinate of each axis is positive. Source: Pearson 1901; by SVD of the centred
    vectors.
    """
    width = max(group.shape[1] for group in groups)
    all_ND = np.concatenate([np.pad(group, ((0, 0), (0, width - group.shape[1]))) for group in groups])
    centred_ND = (all_ND - all_ND.mean(axis=0, keepdims=True)).astype(np.float64)
    _, lengths, axes_AD = np.linalg.svd(centred_ND, full_matrices=False)
    axes_2D = axes_AD[:2] * np.sign(np.take_along_axis(axes_AD[:2], np.abs(axes_AD[:2]).argmax(1)[:, None], 1))
    points_N2 = centred_ND @ axes_2D.T
    shares = lengths[:2] ** 2 / max(np.sum(lengths**2), np.finfo(float).tiny)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(points_N2, ends), (float(shares[0]), float(shares[1]))
