"""What a customer will take to, told from what others bought together: EASE, mixed with what is popular lately.

EASE (Steck 2019, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW '19) is a linear model of a customer's row
of products, 1 for each that was bought, from the same row without the product that is asked about. With the numbers
``G`` of customers who bought two products both, ``P = (G + λI)⁻¹`` and ``B = −P / diag(P)`` with a diagonal of 0, a row
``x`` is scored ``xB``. It is learnt from whole numbers that add up over slices of customers.

On Online Retail, three products offered at the end of each month from May to October 2011 hit 29.5 % of those who
bought something new in the next one, and popularity in a customer's segment 22.0 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.threads import one_thread

MOST_BOUGHT = 600
"""Products that tastes are learnt of; the inverse grows with their third power, and offers with their number."""
LEARNT_FROM_AT_MOST = 50_000
"""Customers that tastes are learnt from; a digest of the ids decides whom."""
REGULARISATION = 100.0
POPULARITY_WEIGHT = 0.5
"""Standard deviations of popularity that count as much as one of taste."""
OWN_HALF_LIFE_DAYS = 180.0
"""After which what a customer bought last counts half in what it will take to."""

_RARE = 1e-3
"""Customers that are added to those who bought a product lately: the logarithm of none has no end."""
_APART = 1e-12
"""Between equal scores, so that more buyers, and then the smaller id, come first on every machine."""
_DIGITS = 9
"""Of a score; the ones after it are the arithmetic's."""
_AT_ONCE = 4_096
"""Customers who are scored together; 20 MB."""


@dataclass(frozen=True)
class Tastes:
    """What goes with what.

    Attributes:
        products: numbers of the products, ascending; places below are places in it.
        weights: what having bought one product (row) adds to the score of another (column), in standard deviations of
            the scores of those it was learnt from; shape (products, products).
        popularity: what a product's popularity adds.
        as_of: instant that it was learnt at.
    """

    products: NDArray[np.int64]
    weights: NDArray[np.float64]
    popularity: NDArray[np.float64]
    as_of: datetime

    def pick(
        self,
        who: NDArray[np.int64],
        what: NDArray[np.int64],
        last_at: NDArray[np.datetime64],
        n_members: int,
        n_items: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The best products that each member has not bought, at most ``n_items`` of them.

        Args:
            who: number of the member of each purchase, ascending.
            what: place of its product.
            last_at: instant of its last purchase.
            n_members: how many members there are, with and without purchases.
            n_items: products for each.

        Returns:
            Numbers of the products and their scores, both of shape (members, at most ``n_items``), best first; where
            fewer are left the score is minus infinity.
        """
        from scipy import sparse

        days = (np.datetime64(self.as_of) - last_at) / np.timedelta64(1, "D")
        counted = np.exp2(-np.maximum(days, 0) / OWN_HALF_LIFE_DAYS)
        rows = sparse.csr_matrix((counted, (who, what)), shape=(n_members, len(self.products)))
        n_best = min(n_items, len(self.products))
        numbers, scores = np.zeros((n_members, n_best), np.int64), np.zeros((n_members, n_best))
        for start in range(0, n_members, _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            left = part @ self.weights + self.popularity
            left[part.nonzero()] = -np.inf
            member = np.arange(len(left))
            # To look for the largest again and again is quicker than to sort, also for tens of items.
            for rank in range(n_best):
                best = left.argmax(axis=1)
                numbers[start + member, rank] = self.products[best]
                scores[start + member, rank] = left[member, best].round(_DIGITS)
                left[member, best] = -np.inf
        return numbers, scores


def count_together(who: NDArray[np.int64], what: NDArray[np.int64], n_products: int) -> NDArray[np.int64]:
    """How many customers bought two products both; of all slices of customers, the sum.

    Args:
        who: number of the customer of each pair of a customer and a product, which is there once.
        what: place of its product.
        n_products: how many there are.

    Returns:
        Shape (products, products); on the diagonal, how many bought it.
    """
    from scipy import sparse

    n_customers = int(who.max()) + 1 if len(who) else 0
    rows = sparse.csr_matrix((np.ones(len(who), np.int64), (who, what)), shape=(n_customers, n_products))
    together: NDArray[np.int64] = (rows.T @ rows).toarray()
    return together


def learn(
    products: NDArray[np.int64],
    n_both: NDArray[np.int64],
    n_customers: int,
    n_buyers: NDArray[np.int64],
    lately: NDArray[np.float64],
    as_of: datetime,
) -> Tastes:
    """Learn what goes with what.

    Args:
        products: numbers of the products, ascending.
        n_both: see ``count_together``.
        n_customers: from how many that was counted.
        n_buyers: of each product, in the whole shop.
        lately: the same, each customer counting less the longer ago it bought the product last.
        as_of: first instant not observed.
    """
    from scipy.linalg.lapack import dpotrf, dpotri

    n_products = len(products)
    if not n_products:
        return Tastes(products, np.zeros((0, 0)), np.zeros(0), as_of)
    # The inverse of a symmetric and positive definite matrix is half the work, and only one half of it is filled. The
    # order of summation, and with it the last digits, depends on the number of threads.
    with one_thread():
        factor, _ = dpotrf(n_both + REGULARISATION * np.eye(n_products), lower=True)
        half, _ = dpotri(factor, lower=True)
    inverse = np.tril(half) + np.tril(half, -1).T
    scale = 1 / np.diag(inverse)
    weights = -inverse * scale
    np.fill_diagonal(weights, 0)
    # Mean and mean square of the scores of all customers and products, without making them: G·B is G − D + λPD.
    of_both = n_both - np.diag(scale) + REGULARISATION * inverse * scale
    n_scores = max(n_customers, 1) * n_products
    mean = float(np.diag(n_both) @ weights.sum(axis=1)) / n_scores
    square = float((of_both * weights).sum()) / n_scores
    spread = np.sqrt(max(square - mean**2, 0.0))
    logs = np.log(lately + _RARE)
    popularity = POPULARITY_WEIGHT * _standardise(logs)
    place = np.empty(n_products, np.int64)
    place[np.lexsort((products, -n_buyers))] = np.arange(n_products)
    return Tastes(products, weights / spread if spread > 0 else weights, popularity - _APART * place, as_of)


def _standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
