"""Bootstrap confidence intervals of figures that are averaged over queries."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

LEVEL = 95.0  # per cent
DRAWN_AT_ONCE, MAX_DRAWN = 2**22, 2**28  # indices drawn in one block, and in all
MIN_RESAMPLES = 200  # even if they draw more than MAX_DRAWN indices

Interval = tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Percentile intervals (95 %) over queries drawn with replacement (Efron & Tibshirani 1993, chapter 13).

    resamples: number of resamples; 0: no intervals. Fewer than two queries have no interval either. With more than
    268,000 queries, fewer resamples are drawn, but at least 200. The draws depend only on the seed and the number of
    queries, so all methods are compared on the same draws.
    """

    resamples: int = 1000
    seed: int = 0

    def of_mean(self, values_N: Float[np.ndarray, "N"]) -> Interval:
        """The interval of the mean over queries."""
        return self._interval(lambda index_RN: values_N[index_RN].mean(axis=1), len(values_N))

    def of_median(self, values_N: Float[np.ndarray, "N"]) -> Interval:
        """The interval of the median over queries."""
        return self._interval(lambda index_RN: np.median(values_N[index_RN], axis=1), len(values_N))

    def of_counts(self, statistic: Callable[..., Float[np.ndarray, "R"]], *sizes: int) -> Interval:
        """The interval of a figure that is computed from how often each query is drawn.

        sizes: number of queries of each set; the sets are drawn independently. statistic: takes an array of counts
        [R, n] for each set and returns the figures [R] of R resamples.
        """
        return self._interval(lambda *drawn: statistic(*map(counts, drawn)), *sizes)

    def _interval(self, statistic: Callable[..., Float[np.ndarray, "R"]], *sizes: int) -> Interval:
        if not self.resamples or min(sizes) < 2:
            return None, None
        rng = np.random.default_rng((self.seed, *sizes))
        at_once = max(DRAWN_AT_ONCE // max(sizes), 1)
        resamples = min(self.resamples, max(MAX_DRAWN // max(sizes), MIN_RESAMPLES))
        values = []
        for start in range(0, resamples, at_once):
            R = min(at_once, resamples - start)
            values.append(statistic(*(rng.integers(0, n, (R, n)) for n in sizes)))
        low, high = np.percentile(np.concatenate(values), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
        return float(low), float(high)


def counts(index_RN: Int[np.ndarray, "R N"]) -> Float[np.ndarray, "R N"]:
    """Counts how often each of N queries occurs in each row of indices."""
    R, N = index_RN.shape
    flat = (index_RN + N * np.arange(R)[:, None]).ravel()
    return np.bincount(flat, minlength=R * N).reshape(R, N).astype(np.float64)
