"""Which rows hang together: sites, groups, blocks of time, or labels of one's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import time_blocks
from bayesens.ensemble.ensemble import Ensemble

__all__ = ["row_clusters"]


def row_clusters(
    ensemble: Ensemble, cluster: str | ArrayLike, block: float, rows: NDArray[np.int64]
) -> tuple[NDArray[np.intp], str]:
    """Number the clusters of rows whose errors hang together.

    Parameters
    ----------
    ensemble : Ensemble
    cluster : {"site", "group", "time"} or array_like (obs)
        Sites, groups, time blocks, or labels of your own.
    block : float
        Length of a time block [days; the units of numeric times].
    rows : int array (row)
        Positions of the rows that count.

    Returns
    -------
    codes : int array (row)
        From 0 without gaps.
    kind : str
        What clusters are called.

    Raises
    ------
    ValueError
        An unknown name, labels that the ensemble lacks, rows without one, labels of another length.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "site": ["x", "y", "x"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["a"], site="site")
    >>> codes, kind = row_clusters(ensemble, "site", 30.0, np.arange(3))
    >>> codes.tolist(), kind
    ([0, 1, 0], 'sites')
    """
    if isinstance(cluster, str) and cluster == "time":
        time = ensemble.dataset.coords.get("time")
        if time is None:
            raise ValueError(
                "cluster='time' needs the rows' times, and the ensemble has none; name them with time=..., or "
                "give cluster='site' or one label a row."
            )
        unit = "days" if time.dtype.kind == "M" else "steps"
        return time_blocks(time.values[rows], block), f"time blocks of {block:g} {unit}"
    if isinstance(cluster, str):
        if cluster not in ("site", "group"):
            raise ValueError(f"cluster is 'site', 'group', 'time' or one label a row; got {cluster!r}.")
        given = ensemble.labels(cluster)
        if given is None:
            raise ValueError(f"cluster={cluster!r} needs the rows' {cluster}s, and the ensemble has none; name them with "
                             f"{cluster}=..., or give cluster='time' or one label a row.")  # fmt: skip
        labels, kind = given[rows], f"{cluster}s"
    else:
        given = np.asarray(cluster)
        if given.shape != (ensemble.n_obs,):
            raise ValueError(
                f"cluster has the shape {given.shape}; wanted one label for each of the {ensemble.n_obs} rows."
            )
        labels, kind = given[rows], "clusters"
    if blank := int(np.sum(pd.isna(labels) | (labels == ""))):
        raise ValueError(
            f"{blank} of {len(rows)} rows have no label of a cluster ({kind}); label these rows or drop them."
        )
    return pd.factorize(labels)[0], kind
