"""Tiles of a map: shapes that memory allows, whole chunks of what is to be computed, and the chunks within a tile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

__all__ = ["Tiles", "bytes_in", "choose_tiles", "inner_chunk"]

MOST_CELLS = 2**22  # of a tile: a file of 16 MB a variable, and progress that is seen
SIDE = 256  # cells of a side of a chunk within a tile, where there is a choice
UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


@dataclass(frozen=True)
class Tiles:
    """A grid cut into tiles.

    Attributes
    ----------
    sizes : dict of str to int
        Of the grid, in the order of its dimensions.
    shape : dict of str to int
        Of a tile; those at the far ends may be smaller.
    """

    sizes: Mapping[str, int]
    shape: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Number of tiles along each dimension."""
        return {dim: -(-size // self.shape[dim]) for dim, size in self.sizes.items()}

    def __len__(self) -> int:
        return math.prod(self.counts.values())

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return math.prod(self.sizes.values())

    def places(self, number: int) -> dict[str, int]:
        """Which tile along each dimension."""
        found: dict[str, int] = {}
        for dim, count in reversed(self.counts.items()):
            number, found[dim] = divmod(number, count)
        return {dim: found[dim] for dim in self.sizes}

    def region(self, number: int) -> dict[str, slice]:
        """Cells of a tile, by its number.

        Examples
        --------
        >>> Tiles({"y": 5, "x": 4}, {"y": 3, "x": 2}).region(3)
        {'y': slice(3, 5, None), 'x': slice(2, 4, None)}
        """
        return {
            dim: slice(place * self.shape[dim], min((place + 1) * self.shape[dim], self.sizes[dim]))
            for dim, place in self.places(number).items()
        }

    def cells_of(self, number: int) -> int:
        """How many cells a tile has."""
        return math.prod(one.stop - one.start for one in self.region(number).values())

    def regions(self) -> Iterator[dict[str, slice]]:
        """All tiles, in order."""
        return (self.region(number) for number in range(len(self)))


def bytes_in(text: str | float) -> int:
    """Read an amount of memory.

    Parameters
    ----------
    text : str or number
        Bytes, or such as ``"2GB"`` or ``"500 MiB"``.

    Examples
    --------
    >>> bytes_in("1.5 GB")
    1500000000
    """
    found = re.fullmatch(r"\s*([0-9.eE+]+)\s*([a-zA-Z]*)\s*", str(text))
    try:
        if found is None or found[2].lower() not in UNITS:
            raise ValueError
        amount = int(float(found[1]) * UNITS[found[2].lower()])
    except ValueError:
        raise ValueError(
            f"memory is {text!r}; wanted bytes, or a number with a unit such as '2GB' or '500MB'"
        ) from None
    if amount <= 0:
        raise ValueError(f"memory is {text!r}; wanted more than nothing, such as '2GB'")
    return amount


def choose_tiles(
    maps: xr.Dataset, grid: tuple[str, ...], across: tuple[str, str], *, memory: int, workers: int, cell_bytes: int
) -> tuple[Tiles, int]:
    """Choose the shape of tiles, and how many of them may be in memory at a time.

    A tile is whole chunks of the maps, so that no chunk is computed twice; where the maps lie in memory any shape is.

    Parameters
    ----------
    maps : Dataset
    grid : tuple of str
        Dimensions of the grid.
    across : (str, str)
        Dimensions of rows and columns.
    memory : int
        Bytes that tiles may take together.
    workers : int
        How many tiles are wanted at a time.
    cell_bytes : int
        Bytes of a cell while its tile is computed and written.

    Returns
    -------
    Tiles, workers

    Raises
    ------
    ValueError
        If one chunk of the maps takes more memory than there is.
    """
    sizes = {dim: maps.sizes[dim] for dim in grid}
    chunks = {dim: max(maps.chunksizes[dim]) for dim in grid if dim in maps.chunksizes}
    shape = {dim: min(size, chunks.get(dim, SIDE if dim in across else 1)) for dim, size in sizes.items()}
    least = math.prod(shape.values()) * cell_bytes
    if least > memory and chunks:
        sides = ", ".join(f"{dim}: {size}" for dim, size in shape.items())
        raise ValueError(
            f"One chunk of the maps ({sides}) takes about {least / 1e6:,.0f} MB until it is written, and memory is "
            f"{memory / 1e6:,.0f} MB; chunk the grid finer, to {memory // cell_bytes:,} cells or fewer, before it is predicted, "
            f"or allow memory='{2 * least / 1e9:.2g}GB'."
        )
    while least > memory and max(shape.values()) > 1:  # in memory: any tile may be made smaller
        widest = max(shape, key=lambda dim: shape[dim])
        shape[widest] = -(-shape[widest] // 2)
        least = math.prod(shape.values()) * cell_bytes
    workers = max(1, min(workers, memory // least))
    most = min(MOST_CELLS, memory // (workers * cell_bytes))
    return Tiles(
        sizes, _grown(shape, sizes, [across[1], across[0], *(dim for dim in reversed(grid) if dim not in across)], most)
    ), workers


def _grown(shape: dict[str, int], sizes: dict[str, int], order: Sequence[str], most: int) -> dict[str, int]:
    """Double a tile along one dimension after the other while it stays small enough; sides stay multiples of the first."""
    shape = dict(shape)
    growing = True
    while growing:
        growing = False
        for dim in order:
            wider = min(2 * shape[dim], sizes[dim])
            if shape[dim] < sizes[dim] and math.prod(shape.values()) // shape[dim] * wider <= most:
                shape[dim], growing = wider, True
    return shape


def inner_chunk(side: int) -> int:
    """The chunk within a tile along a dimension: a divisor near 256, or the whole side where it has none.

    Examples
    --------
    >>> inner_chunk(1000), inner_chunk(100), inner_chunk(509)
    (250, 100, 509)
    """
    if side <= SIDE:
        return side
    found = [one for one in range(SIDE // 4, SIDE + 1) if side % one == 0]
    return max(found, default=side)
