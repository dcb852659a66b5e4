"""Who of a campaign is held out: the lowest salted hashes of each segment, an exact number of them.

Whether so many are enough belongs in ``power``; what comes of it, in ``estimate``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_HASH_BYTES = 8


def assign_holdout(ids: Sequence[str], segments: Sequence[str], salt: str, share: float) -> NDArray[np.bool_]:
    """Which customers are held out: of each segment the same share, by rank of their hash.

    Equal salt and ids give equal groups, in whatever order the customers come. Ranks give exact numbers; a coin for
    each customer would not, and would widen every interval of a small segment.

    Args:
        ids: of the customers, no two equal.
        segments: of each.
        salt: of the campaign; another one for each, or the same customers would be held out of all.
        share: to hold out, between 0 and 1.

    Returns:
        shape (customers,).

    >>> int(assign_holdout(["a", "b", "c", "d", "e"], ["S1"] * 5, "salt", 0.2).sum())
    1
    """
    hashes, codes = hash_ids(ids, salt), np.unique(np.asarray(segments, dtype=np.str_), return_inverse=True)[1]
    # By segment, then hash; equal hashes, which nobody will see, by id.
    order = np.lexsort((np.asarray(ids, dtype=np.str_), hashes, codes))
    sizes = np.bincount(codes) if len(codes) else np.zeros(0, np.int64)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(order)) - starts[codes[order]]
    is_held = np.zeros(len(order), np.bool_)
    is_held[order] = rank < held_out_of(sizes, share)[codes[order]]
    return is_held


def held_out_of(sizes: NDArray[np.integer], share: float) -> NDArray[np.int64]:
    """How many customers are held out of segments of some sizes: the share, rounded, a half up.

    >>> held_out_of(np.array([0, 2, 3, 12]), 0.2).tolist()
    [0, 0, 1, 2]
    """
    return np.floor(np.asarray(sizes) * share + 0.5).astype(np.int64)


def hash_ids(ids: Sequence[str], salt: str) -> NDArray[np.uint64]:
    """A keyed hash (BLAKE2b) of each id, even over 64 bits.

    The hashes of Polars and NumPy may be others in their next version, and then nobody could check a split.
    """
    keyed = hashlib.blake2b(key=salt.encode(), digest_size=_HASH_BYTES)

    def digest(customer_id: str) -> bytes:
        hashed = keyed.copy()
        hashed.update(customer_id.encode("utf-8", "surrogatepass"))
        return hashed.digest()

    return np.frombuffer(b"".join(map(digest, ids)), ">u8").astype(np.uint64)


def draws_seed(salt: str) -> int:
    """The seed of the splits that a report compares the campaign's own with; made of the salt, and not the salt."""
    return int.from_bytes(hashlib.blake2b(b"draws", key=salt.encode(), digest_size=_HASH_BYTES).digest(), "big")
