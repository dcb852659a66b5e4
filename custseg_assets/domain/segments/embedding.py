"""The embedding that the clusters of a deep model lie in: a small network as plain numbers, and its forward pass.

NumPy only, as the service needs it. The network is trained in ``custseg_assets.training.networks``, with libraries of
its own; what it leaves is here. Clusters in an embedding are fitted in ``clustering``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_ROWS_AT_ONCE = 100_000
_WEEK = "orders_week_"


def week_columns(n_weeks: int) -> tuple[str, ...]:
    """Names of the columns with the orders of each week, the newest week first.

    >>> week_columns(2)
    ('orders_week_01', 'orders_week_02')
    """
    return tuple(f"{_WEEK}{week:02}" for week in range(1, n_weeks + 1))


@dataclass(frozen=True)
class Layer:
    """A dense layer.

    Attributes:
        weights: one tuple per input, with a number for each output.
        biases: one per output.
    """

    weights: tuple[tuple[float, ...], ...]
    biases: tuple[float, ...]


@dataclass(frozen=True)
class Embedding:
    """A network that puts customers into a space of few dimensions, and the centroids of the clusters there.

    Distances there are in units of the embedding, in which the customers it was trained on have a mean variance of 1.

    Attributes:
        n_weeks: weeks before ``as_of`` whose orders it looks at.
        week_means: mean of ``log1p(orders)`` in each week.
        week_std: standard deviation of all of them together.
        layers: of the encoder; all but the last are followed by max(·, 0).
        centroids: one tuple per cluster.
    """

    n_weeks: int
    week_means: tuple[float, ...]
    week_std: float
    layers: tuple[Layer, ...]
    centroids: tuple[tuple[float, ...], ...] = ()

    @property
    def n_dimensions(self) -> int:
        """Of the space that customers are put into."""
        return len(self.layers[-1].biases)

    def scale_weeks(self, orders: Matrix) -> Matrix:
        """Orders by week, shape (customers, weeks), as the network sees them."""
        scaled: Matrix = (np.log1p(orders) - np.array(self.week_means)) / self.week_std
        return scaled

    def embed(self, scaled: Matrix, orders: Matrix) -> Matrix:
        """Where customers are, shape (customers, dimensions).

        Sums are taken input by input, so a customer's place does not depend on the rows around it, nor on a library
        for linear algebra.

        Args:
            scaled: features on the model's scale, shape (customers, features).
            orders: by week, the newest first, shape (customers, weeks).
        """
        places = [
            self._forward(np.hstack([scaled[part], self.scale_weeks(orders[part])]))
            for part in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, max(len(scaled), 1), _ROWS_AT_ONCE))
        ]
        embedded: Matrix = np.concatenate(places)
        return embedded

    def _forward(self, values: Matrix) -> Matrix:
        for number, layer in enumerate(self.layers):
            inputs = np.maximum(values, 0.0) if number else values
            values = np.tile(np.array(layer.biases), (len(inputs), 1))
            for column, weights in enumerate(layer.weights):
                values += inputs[:, column : column + 1] * np.array(weights)
        return values
