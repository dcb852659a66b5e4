"""The network of a deep model: an autoencoder of features and orders by week, trained with Keras on TensorFlow.

The only place that imports them, and they are installed by the extra ``deep`` only; so a trainer has an environment of
its own. What is left of a network is numbers, ``domain.segments.embedding``, which NumPy scores with. The same data and
settings give the same numbers on the same machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from custseg_assets.domain.segments.clustering import FIT_SAMPLE, draw_rows
from custseg_assets.domain.segments.embedding import Embedding, Layer
from custseg_assets.domain.segments.model import Matrix
from custseg_assets.errors import BadInputError
from custseg_assets.settings import ModelSettings

_HIDDEN = 32
_BATCH = 64
_LEARNING_RATE = 3e-3


def train_networks(
    scaled: Matrix, orders: Matrix, settings: ModelSettings, progress: Callable[[str], None]
) -> tuple[Embedding, list[Matrix]]:
    """The network of a snapshot's customers, and where others, trained on resamples, put the same customers.

    Args:
        scaled: features on the model's scale, shape (customers, features).
        orders: by week, the newest first, shape (customers, weeks).
        settings: of the network, and the seed.
        progress: told one line per network.

    Raises:
        BadInputError: TensorFlow is not installed here.
    """
    keras = _load_keras()
    rng = np.random.default_rng(settings.seed)
    sample = draw_rows(scaled, FIT_SAMPLE, rng)
    embedding = _train(keras, scaled[sample], orders[sample], settings, settings.seed)
    progress(f"network on {len(sample):,} customers, {settings.deep_weeks} weeks, {settings.deep_epochs} epochs")
    refits = []
    for number in range(1, settings.deep_refits + 1):
        resample = sample[rng.integers(len(sample), size=len(sample))]
        other = _train(keras, scaled[resample], orders[resample], settings, settings.seed + number)
        refits.append(other.embed(scaled, orders))
        progress(f"network {number} of {settings.deep_refits} on resamples")
    return embedding, refits


def _load_keras() -> ModuleType:
    """Keras on TensorFlow, on one thread and such that the same input gives the same output."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise BadInputError(
            f'kind = "deep" in an environment without {error.name or "TensorFlow"}',
            "one with the extra 'deep'",
            "Make it by 'make deep' and name its interpreter by [training] deep_python, or, on Vertex "
            "AI, the image of the target trainer-deep.",
        ) from None
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    loaded: ModuleType = keras
    return loaded


def _train(keras: Any, scaled: Matrix, orders: Matrix, settings: ModelSettings, seed: int) -> Embedding:
    keras.utils.set_random_seed(seed % 2**32)
    logged = np.log1p(orders)
    unlearnt = Embedding(
        n_weeks=orders.shape[1],
        week_means=tuple(logged.mean(axis=0).tolist()),
        week_std=float(np.sqrt(logged.var(axis=0).mean())) or 1.0,
        layers=(),
    )
    inputs = np.hstack([scaled, unlearnt.scale_weeks(orders)]).astype(np.float32)
    encoder = keras.Sequential(
        [
            keras.layers.Input((inputs.shape[1],)),
            keras.layers.Dense(_HIDDEN, activation="relu"),
            keras.layers.Dense(settings.deep_dimensions),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.layers.Input((settings.deep_dimensions,)),
            keras.layers.Dense(_HIDDEN, activation="relu"),
            keras.layers.Dense(inputs.shape[1]),
        ]
    )
    autoencoder = keras.Sequential([encoder, decoder])
    autoencoder.compile(optimizer=keras.optimizers.Adam(_LEARNING_RATE), loss="mse", jit_compile=False)
    autoencoder.fit(inputs, inputs, batch_size=_BATCH, epochs=settings.deep_epochs, verbose=0)
    weights = [np.asarray(one, dtype=np.float64) for one in encoder.get_weights()]
    learnt = replace(unlearnt, layers=tuple(map(_layer, weights[::2], weights[1::2])))
    return _standardise(learnt, learnt.embed(scaled, orders))


def _standardise(embedding: Embedding, places: Matrix) -> Embedding:
    """The same network with customers around 0 and a mean variance of 1, by its last layer."""
    *others, last = embedding.layers
    std = float(np.sqrt(places.var(axis=0).mean())) or 1.0
    weights, biases = np.array(last.weights) / std, (np.array(last.biases) - places.mean(axis=0)) / std
    return replace(embedding, layers=(*others, _layer(weights, biases)))


def _layer(weights: Matrix, biases: Matrix) -> Layer:
    return Layer(tuple(tuple(row) for row in weights.tolist()), tuple(biases.tolist()))
