"""Intervals of what is averaged over queries."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

LEVEL = 95.0  # per cent
DRAWN_AT_ONCE, DRAWN_IN_ALL = 2**22, 2**28  # numbers of queries
RESAMPLES_AT_LEAST = 200  # where so many queries are drawn from that all resamples would take more than DRAWN_IN_ALL

Interval = tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Percentile intervals of 95 % over queries drawn with replacement (Efron & Tibshirani 1993, chapter 13).

    resamples: how often; 0: no interval, as there is none over fewer than two queries. Beyond 268,000 queries fewer are
    drawn, 200 at least. The draws are a function of seed and number of queries alone, so that methods are compared on
    the same ones.
    """

    resamples: int = 1000
    seed: int = 0

    def of(self, n: int, statistic: Callable[[Int[np.ndarray, "R n"]], Float[np.ndarray, "R"]]) -> Interval:
        """Of a figure over n queries. statistic: its value for each row of queries' numbers."""
        return self._over((n,), statistic)

    def of_mean(self, values_N: Float[np.ndarray, "N"]) -> Interval:
        """Of the mean over queries."""
        return self.of(len(values_N), lambda index_RN: values_N[index_RN].mean(axis=1))

    def of_median(self, values_N: Float[np.ndarray, "N"]) -> Interval:
        """Of the median over queries."""
        return self.of(len(values_N), lambda index_RN: np.median(values_N[index_RN], axis=1))

    def of_counts(self, n: int, statistic: Callable[[Float[np.ndarray, "R n"]], Float[np.ndarray, "R"]]) -> Interval:
        """Of a figure over n queries that is known from how often each is drawn."""
        return self._over((n,), lambda index_RN: statistic(counts(index_RN)))

    def of_two(
        self,
        n: int,
        m: int,
        statistic: Callable[[Float[np.ndarray, "R n"], Float[np.ndarray, "R m"]], Float[np.ndarray, "R"]],
    ) -> Interval:
        """Of a figure over two sets, each drawn by itself, from how often each of their members is drawn."""
        return self._over((n, m), lambda *drawn: statistic(*map(counts, drawn)))

    def _over(self, sizes: tuple[int, ...], statistic: Callable[..., Float[np.ndarray, "R"]]) -> Interval:
        if not self.resamples or min(sizes) < 2:
            return None, None
        rng = np.random.default_rng((self.seed, *sizes))
        at_once = max(DRAWN_AT_ONCE // max(sizes), 1)
        resamples = min(self.resamples, max(DRAWN_IN_ALL // max(sizes), RESAMPLES_AT_LEAST))
        values = []
        for start in range(0, resamples, at_once):
            R = min(at_once, resamples - start)
            values.append(statistic(*(rng.integers(0, n, (R, n)) for n in sizes)))
        low, high = np.percentile(np.concatenate(values), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
        return float(low), float(high)


def counts(index_RN: Int[np.ndarray, "R N"]) -> Float[np.ndarray, "R N"]:
    """How often each of N queries comes in each row of queries' numbers."""
    R, N = index_RN.shape
    flat = (index_RN + N * np.arange(R)[:, None]).ravel()
    return np.bincount(flat, minlength=R * N).reshape(R, N).astype(np.float64)
