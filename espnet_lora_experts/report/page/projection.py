"""States of many dimensions as a picture of two, and a number that does not flatten."""

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

_FEWEST = 12  # points from which on neighbourhoods mean something


def project(states_ND: np.ndarray) -> np.ndarray:
    """Places of N states in the plane: t-SNE by cosine distance; PCA where N is small.

    The same states give the same places.
    """
    states_ND = np.asarray(states_ND, dtype=np.float64)
    if len(states_ND) < _FEWEST:
        places_N2 = np.zeros((len(states_ND), 2))
        if len(states_ND) > 1:
            kept = PCA(n_components=min(2, *states_ND.shape)).fit_transform(states_ND)
            places_N2[:, : kept.shape[1]] = kept
        return places_N2
    perplexity = min(30.0, (len(states_ND) - 1) / 4)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0)
    return tsne.fit_transform(states_ND)


def same_neighbours(states_ND: np.ndarray, labels: Sequence[str]) -> float:
    """Share of states whose nearest other state has the same label, in percent.

    A state by itself has no other: 0.

    Example:
        >>> states_ND = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
        >>> same_neighbours(states_ND, ["a", "a", "b", "b"])
        100.0
    """
    if len(states_ND) < 2:
        return 0.0
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(states_ND)
    other = nearest.kneighbors(return_distance=False)[:, 0]
    names = np.asarray(labels)
    return float(100 * (names[other] == names).mean())
