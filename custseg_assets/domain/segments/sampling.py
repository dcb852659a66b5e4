"""A stratified sample of the customers to fit on, and how much what was fitted would change with another sample.

Only shops with more than ``FITTED_WHOLE`` customers are sampled. Who is fitted on a sample still has everybody
assigned; that belongs in ``clustering``.

The sample is systematic: customers are put in the order of their strata and, within a stratum, of their features, and
every m-th of them is drawn from a random start on (Madow and Madow 1944, *On the theory of systematic sampling*). Each
stratum is then represented by its share of the customers to within one, so nobody has to be weighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.segments.model import Labels, Matrix

FITTED_WHOLE = 2_000_000
"""Up to so many customers a fit sees all of them."""
SAMPLE = 1_000_000
"""How many a fit sees of more, at first; as many more as ``MAX_MOVED`` needs. Figures are in docs/adr/0048."""
GROWTH = 4
"""By how much a sample that is too small grows."""
N_OTHER_SAMPLES = 5
"""Other samples of the same size that a fit is repeated on."""
MAX_MOVED = 0.005
"""The share of customers that may change their cluster between two samples; a sample is further from another than from
all customers, by √2, so a fit on all of them moves fewer."""

_N_CELLS = 1_000
_MOST_BINS, _FEWEST_BINS = 10, 2


class Strata:
    """Customers in the order that samples are drawn in.

    Strata are the cells of a grid of each feature's quantiles: tenths of three features, fewer of more. So groups that
    are few, but large or unlike all others, are in every sample by their share.

    Args:
        matrix: shape (customers, features), on the model's scale; its order does not matter.
    """

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._matrix)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        strata = np.zeros(len(self), np.int32)
        n_features = self._matrix.shape[1]
        # The third root of 1,000 is a little less than 10.
        n_bins = min(_MOST_BINS, max(_FEWEST_BINS, int(_N_CELLS ** (1 / n_features) + 1e-9)))
        for values in self._matrix.T:
            cuts = np.quantile(values, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
            strata *= n_bins
            strata += np.searchsorted(cuts, values, side="left").astype(np.int32)
        # Customers that are alike in all features are one as good as the other.
        return np.lexsort([*self._matrix.T, strata])

    def draw(self, n: int, rng: np.random.Generator) -> Matrix:
        """Features of a sample.

        Args:
            n: customers to draw, at most as many as there are.
            rng: decides where the sample starts.

        Returns:
            Shape (n, features), in the order of the strata.
        """
        places = np.floor((np.arange(n) + rng.random()) * (len(self) / n)).astype(np.int64)
        drawn: Matrix = self._matrix[self._order[np.minimum(places, len(self) - 1)]]
        return drawn


@dataclass(frozen=True)
class SamplingError:
    """What changes where a fit goes on from its end on other samples of the same size; the worst of them.

    It says how far an optimum moves with the sample. Which of several optima is found from scratch is another question,
    in shops of every size; the stability that the sweep measures is about that.

    Attributes:
        n_sampled: customers in a sample.
        n_customers: that they are drawn from.
        n_samples: other samples that the fit was repeated on.
        centroid_shift: by how much a centroid moves, in standard deviations of the reference.
        share_shift: by how much a cluster's share of the customers changes.
        moved: share of the customers that have another cluster.
    """

    n_sampled: int
    n_customers: int
    n_samples: int
    centroid_shift: float
    share_shift: float
    moved: float

    @property
    def is_small(self) -> bool:
        """Whether the sample is large enough."""
        return self.moved <= MAX_MOVED

    def sentence(self) -> str:
        """The figures in words, for the reasons of a choice."""
        return (
            f"fitted on a stratified sample of {self.n_sampled:,} of {self.n_customers:,} customers; where K-means "
            f"goes on from there on {self.n_samples} other samples of that size, centroids move by at most "
            f"{self.centroid_shift:.4f} standard deviations, segments' shares by {self.share_shift * 100:.2f} "
            f"points, and {self.moved:.2%} of the customers have another segment"
        )


def compare_fits(centroids: Matrix, labels: Labels, others: Matrix, other_labels: Labels) -> tuple[float, float, float]:
    """How far two fits with the same numbering of clusters are from each other, see ``SamplingError``.

    Args:
        centroids: of one fit, shape (k, features).
        labels: of the same customers under both, shape (customers,).
        others: centroids of the other fit.
        other_labels: the clusters of the customers under it.

    >>> compare_fits(np.zeros((2, 1)), np.array([0, 0, 1, 1]), np.array([[0.0], [3.0]]), np.array([0, 1, 1, 1]))
    (3.0, 0.25, 0.25)
    """
    shift = np.sqrt(((centroids - others) ** 2).sum(axis=1)).max()
    sizes, other_sizes = (np.bincount(one, minlength=len(centroids)) for one in (labels, other_labels))
    return (
        float(shift),
        float(np.abs(sizes - other_sizes).max() / len(labels)),
        float((labels != other_labels).mean()),
    )
