"""Example data: downloaded from their origin and checked against known hashes, or read from copies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.console import progress
from bayesens.messages import listed

__all__ = ["atlanta", "atlanta_grid", "oznet", "oznet_grid"]

ORIGIN = "https://raw.githubusercontent.com/yuyi13/OzNet_AOA/3bf12879482d9153ea63b59b8f74ffb63d562056/0_ancillary/"
SITES = "OzNet_study_sites.csv"
SITES_HASH = "157be46e64d43f7d49a2ce2773034be3eb419dc4dd081cdb1d0c17e7d212392f"
STATION_HASH = {
    "y10": "296fadc710b90a8b6d674215f76a602319ea2e4dbb43c92b743bda057e1647e9",
    "y5": "ba043471455e3aa710926c11744e25bfd052f19425fed56a6ffa7b30a6b6a52f",
    "y7": "f3f49decaa67d7a45b793c421d4e0d336542475fc71f54e6c8d99170ef775ae6",
    "y8": "0e963caae958dcdb8d5e747515646cb0f3a16e5b4716c76e94d2e7121318eb96",
    "y9": "27882cbd23850df3e2c615f9654103a78965ae83b651df27da6f68230faf26f2",
    "ya3": "42826a0309faac32d80a8837e17be85439950d6b0d6a0c6492f60c09f2172757",
    "ya4a": "c7378370c18158c2b4f0b61acbe59a00c69086b3bc68134ef4810b7377bb3c47",
    "ya4b": "5646a8bea8b6d2309a7bf9431893be6d1e3fceb6f40b2ba7a5a40316646fd43f",
    "ya4c": "be9cef6b9d1dde757b211bb4e9fb9dc6609d89a961d83e3b5e36872cb9d6ebe1",
    "ya4d": "8367bb747b2d5b68f3c1f17a9fa915b496f80d576384fda3995c1d746db6982d",
    "ya4e": "a30534b91e572fc60b4ca4527672db7ed6f037c8b06d15e8005f0130d8b9c1ff",
    "ya5": "b451dd6adc4ab312f086ec7af1a8a7121403852e3fe0da4cf7963ff1980f2a47",
    "ya7a": "f7d3cb30ebbd11664eaa4980d31994a1a81167aa3b8eab3378060cf5c73e20c9",
    "ya7b": "44f84f9e22264220ae2e810185f6952f1d7fd0dab9859771cd0f773a26467f8d",
    "ya7d": "af32f6b27117d4d74775072bed377facdef9dfb12cdc217a610d0558b50c48f4",
    "ya7e": "8c44e5631d6a4805110b9b59940213bb669ec151702f1aeb6a47deb7fc2ed512",
    "ya9": "6df5ac9a52f1946e5437bb687765b76b49fd12ad772158598639014d348e7c7a",
    "yb1": "92b6181b3c41e18e7b3f355c6e6b4cf38b7be6a058c8658e453cddc00301a089",
    "yb3": "ae6531137340ad812ca7ec7079cba5f7b934bac7e87989287f6bf6046f010cfd",
    "yb5a": "a096fac05e0fc30e52cafee45ac5b1b81a449dbda89e92f60eb77ce85c66d73c",
    "yb5b": "ecf879c97354ed7e6e488cbbc153321060ba247186ce3b97c7f64ad923f1510a",
    "yb5d": "93a4f249ca6e9e3c5e0895d424796ff48376124a0e226ae6f4255be74a9adec1",
    "yb5e": "2d9280240b87b12c77a55d98cf649186088636b0815d6e0483d0f2241739a506",
    "yb7a": "06f0a8cc54f955837acccaf231db8f0e924fbc460216e1dcc4d8ca8f2cc5f7b7",
    "yb7c": "7e4a6ffbcf3026ffd72d6a1807a1a40409c677f91cb5ed437906e55ef991161d",
    "yb7d": "bdccabd2f699a9a65646f65a751a13161401280237e4336ff71be2dacccab772",
    "yb7e": "0d92fb4204d17f6615547cc72483f0a285e3c692bd37638621e39634f8d106a0",
    "yb9": "f838683a59a5c84f16c0bc24e1146cc2906ccd03d3a8e1d632e204dd7c75c284",
}
MADE = {
    "atlanta_daily.csv.gz": "19441915181aef5b6240cdbe40974797132df916251f5cf55d5e1108c0026e01",
    "grid_200406.nc": "0127b78a9934d837ec832248adfa919b11a8f813246648ece1540cffe2317cec",
    "grid_20160205_1km.nc": "1372f01721e2adfd86b95f31892718246780fc63b718edcc9d8cfb922d01052b",
}  # made from files of their sources, which keep them in forms of R
COPIES = ("y8", "y9")  # their in-situ series are those of y7, day by day
UNITS = {
    "lat": "degrees_north", "lon": "degrees_east", "insitu_sm": "m3 m-3", "dem": "m", "clay": "1", "silt": "1", "sand": "1",
    "lst_1km": "K", "lst_100m": "K", "lst_interp_1km": "K", "lst_interp_100m": "K", "albedo_500m": "1", "albedo_100m": "1",
    "ndvi_500m": "1", "ndvi_100m": "1", "et_100m": "mm d-1", "tavg": "degC", "vpd": "hPa", "srad": "MJ m-2 d-1",
    "rain": "mm d-1",
}  # fmt: skip


ATLANTA_UNITS = {
    "pm25": "ug m-3", "ctm": "ug m-3", "aod": "1", "tmp": "K", "wind": "m s-1", "elevation": "m", "forestcover": "1",
    "hwy_length": "m", "lim_hwy_length": "m", "local_rd_length": "m", "point_emi_any": "1", "x": "km", "y": "km",
}  # fmt: skip


def oznet(
    *,
    path: str | Path | None = None,
    years: int | Iterable[int] | None = None,
    drop_copies: bool = True,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Daily soil moisture of 28 OzNet stations with covariates, Yanco, New South Wales, 2016 to 2021.

    The first call downloads 29 files (about 8 MB) into the user's cache; every file is checked against its hash.

    Parameters
    ----------
    path : path, optional
        Folder with copies of the files to read in place of a download. None: the folder in the environment variable
        ``BAYESENS_DATA``, if that is set. The files may lie in it or in ``raw``, ``oznet`` or ``oznet/raw`` below it.
    years : int or iterable of int, optional
        For example ``range(2016, 2020)``, the training years of the source. None: all.
    drop_copies : bool
        Leave out stations y8 and y9, whose in-situ series are copies of that of y7.
    progressbar : bool

    Returns
    -------
    pandas.DataFrame (obs, 26)
        One row a station and day, sorted by station and time; units in ``attrs["units"]``.

        =================================== ====================================================================
        ``station``, ``cluster``            label; A, B or isolated
        ``spatial_fold``                    1 to 4: the fold of the station in the source
        ``insitu_is_copy_of_y7``            whether the in-situ series is a copy of that of y7
        ``time``, ``lat``, ``lon``          day; degrees
        ``insitu_sm``                       soil moisture [m3 m-3], NaN where not measured
        ``dem``, ``awc``                    elevation [m]; available water capacity (no unit given)
        ``clay``, ``silt``, ``sand``        texture [fraction]
        ``lst_1km``, ``lst_100m``           land surface temperature [K], half of it missing
        ``lst_interp_1km``, ``..._100m``    the same with gaps filled
        ``albedo_500m``, ``albedo_100m``    albedo
        ``ndvi_500m``, ``ndvi_100m``        vegetation index
        ``et_100m``                         evapotranspiration [mm d-1]
        ``tavg``, ``vpd``                   air temperature [degC]; vapour pressure deficit [hPa]
        ``srad``, ``rain``                  solar radiation [MJ m-2 d-1]; rain [mm d-1]
        =================================== ====================================================================

    Raises
    ------
    FileNotFoundError
        A folder without the files.
    ConnectionError
        No copy, and no download.
    ValueError
        A file that is not the one published, or years that there are not.

    Notes
    -----
    The table is the concatenation of the files in ``0_ancillary`` of the repository yuyi13/OzNet_AOA, under the MIT
    License, Copyright (c) 2025 Yi Yu. Please cite both references. The source states no units for `vpd`, `srad` and
    `et_100m`; those here are inferred from the size of the values.

    References
    ----------
    Yu, Malone, Renzullo, Burton, Tian, Searle, Bishop & Walker (2025), Spatial soil moisture prediction from in-situ
    data upscaled to Landsat footprint: Assessing area of applicability of machine learning models, IEEE Transactions on
    Geoscience and Remote Sensing.

    Smith et al. (2012), The Murrumbidgee soil moisture monitoring network data set, Water Resources Research 48, W07701.

    Examples
    --------
    >>> oznet(years=range(2016, 2020))["station"].nunique()  # doctest: +SKIP
    26
    """
    given = path if path is not None else os.environ.get("BAYESENS_DATA")
    folder = _copies(Path(given)) if given else _download(progressbar)
    table = _table(folder)
    if drop_copies:
        table = table[~table["insitu_is_copy_of_y7"]]
    if years is not None:
        table = _of_years(table, [int(years)] if isinstance(years, int | np.integer) else list(years))
    table = table.reset_index(drop=True)
    table.attrs["units"] = dict(UNITS)
    return table


def oznet_grid(*, path: str | Path | None = None) -> xr.Dataset:
    """Covariates of one day, 5 February 2016, on 100 x 100 cells of about 1 km around the OzNet stations.

    Parameters
    ----------
    path : path, optional
        Folder with the file ``grid_20160205_1km.nc``, or one above it called as in `oznet`. None: the folder in the environment
        variable ``BAYESENS_DATA``. There is no download: the file holds block means of the rasters of the source.

    Returns
    -------
    Dataset
        On ``(lat, lon)``: ``rain`` [mm d-1], ``srad``, ``tavg`` [degC], ``vpd``, ``et``, ``lst`` [K], ``awc``, ``dem`` [m] and
        ``slt`` (silt) [fraction, as in the table]. NDVI, albedo, clay and sand have no raster.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A file that is not the one known.

    Examples
    --------
    >>> oznet_grid()["lst"].sizes  # doctest: +SKIP
    Frozen({'lat': 100, 'lon': 100})
    """
    return xr.load_dataset(_made("grid_20160205_1km.nc", path, "oznet", "oznet_grid"), engine="h5netcdf")


def atlanta(*, path: str | Path | None = None, years: int | Iterable[int] | None = None) -> pd.DataFrame:
    """Daily fine particles (PM2.5) at 37 monitors around Atlanta, Georgia, with covariates, 2003 to 2005.

    Parameters
    ----------
    path : path, optional
        Folder with the file ``atlanta_daily.csv.gz``, or one whose folder ``atlanta`` has it. None: the folder in the
        environment variable ``BAYESENS_DATA``. There is no download: the source keeps its tables as files of R (.rda).
    years : int or iterable of int, optional
        None: all.

    Returns
    -------
    pandas.DataFrame (obs, 15)
        One row a monitor and day; units in ``attrs["units"]``.

        ================================ ====================================================================
        ``monitor``, ``date``            label; day
        ``pm25``, ``ctm``                observed, and of a chemical transport model [ug m-3]
        ``aod``                          satellite aerosol optical depth, missing under clouds: 43 % of the rows
        ``tmp``, ``wind``                air temperature [K]; wind speed [m s-1]
        ``elevation``, ``forestcover``   [m]; [fraction]
        ``hwy_length``, ...              length of roads in the cell: ``lim_hwy_length``, ``local_rd_length`` [m]
        ``point_emi_any``                whether the cell has a point source of emissions
        ``x``, ``y``                     [km], a Lambert projection whose parameters the source does not give
        ================================ ====================================================================

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A file that is not the one known, or years that there are not.

    Notes
    -----
    From the repository WyattGMadden/ensembleDownscaleR, under the MIT License, Copyright (c) 2023 ensembleDownscaleR authors.
    Observations are of the EPA's Air Quality System; ctm of CMAQ, aod of MODIS, weather of NLDAS, land cover of NLCD.

    References
    ----------
    Madden et al. (2025), Remote Sensing, of the package ensembleDownscaleR.

    Examples
    --------
    >>> atlanta(years=2004)["monitor"].nunique()  # doctest: +SKIP
    37
    """
    table = pd.read_csv(_made("atlanta_daily.csv.gz", path, "atlanta", "atlanta"), parse_dates=["date"])
    if years is not None:
        table = _of_years(table, [int(years)] if isinstance(years, int | np.integer) else list(years), "date")
        table = table.reset_index(drop=True)
    table.attrs["units"] = dict(ATLANTA_UNITS)
    return table


def atlanta_grid(*, path: str | Path | None = None) -> xr.Dataset:
    """The covariates of `atlanta` on 50 x 48 cells of 12 km, on the 30 days of June 2004; aod is missing under clouds.

    Parameters
    ----------
    path : path, optional
        Folder with the file ``grid_200406.nc``, or one whose folder ``atlanta`` has it. None: that in ``BAYESENS_DATA``.

    Returns
    -------
    Dataset
        On ``(time, row, col)`` or ``(row, col)``, with ``x`` and ``y (row, col)`` [km].

    Raises
    ------
    FileNotFoundError, ValueError
        As `atlanta`.

    Examples
    --------
    >>> atlanta_grid()["ctm"].sizes  # doctest: +SKIP
    Frozen({'time': 30, 'row': 50, 'col': 48})
    """
    return xr.load_dataset(_made("grid_200406.nc", path, "atlanta", "atlanta_grid"), engine="h5netcdf")


def _made(name: str, path: str | Path | None, below: str, function: str) -> Path:
    """A file that is not downloaded, checked."""
    given = path if path is not None else os.environ.get("BAYESENS_DATA")
    if not given:
        raise FileNotFoundError(
            f"datasets.{function}() reads {name} from a folder, and none was named; it cannot be downloaded: name one as path, "
            "or in the environment variable BAYESENS_DATA"
        )
    places = [Path(given) / part / name for part in ("", below)] + [Path(given).parent / below / name]
    file = next((one for one in places if one.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"{given} has no {name}, nor has {below} in it or beside it; wanted the folder with this file"
        )
    if sha256(file.read_bytes()).hexdigest() != MADE[name]:
        raise ValueError(f"{file} is not the file that bayesens knows as {name}; copy it anew")
    return file


def _known() -> dict[str, str]:
    """Hash of every file, by its place below the origin."""
    return {SITES: SITES_HASH} | {_file(station): known for station, known in STATION_HASH.items()}


def _file(station: str) -> str:
    return f"OzNet_cleaned_data/OzNet_{station}_cleaned_data.csv"


def _copies(given: Path) -> Path:
    """Return the folder of the copies, every one checked."""
    places = [given / below for below in ("", "raw", "oznet", "oznet/raw")]
    folder = next((place for place in places if (place / SITES).is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{given} has no {SITES}, nor have raw, oznet or oznet/raw in it; wanted the folder with copies of the OzNet files. "
            "To download them give no path and unset BAYESENS_DATA"
        )
    for name, known in _known().items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; copy the file from {ORIGIN}{name}")
        if sha256((folder / name).read_bytes()).hexdigest() != known:
            raise ValueError(f"{folder / name} is not the file that was published; copy it anew from {ORIGIN}{name}")
    return folder


def _download(progressbar: bool) -> Path:
    """Return the folder of the user's cache that holds the files, after fetching those that are not there."""
    import pooch
    from requests import RequestException

    store = pooch.create(pooch.os_cache("bayesens") / "oznet", base_url=ORIGIN, registry=_known(), retry_if_failed=1)
    log = pooch.get_logger()
    level = log.level
    log.setLevel("ERROR")  # a line for each of 29 files says less than one bar
    try:
        with progress(len(store.registry), "OzNet", progressbar) as advance:
            for name in store.registry:
                store.fetch(name)
                advance()
    except RequestException as error:  # a full disk speaks for itself
        raise ConnectionError(
            f"could not download {name} from {ORIGIN} ({type(error).__name__}); wanted a network connection, or a folder with "
            "copies of the files: oznet(path=...) or the environment variable BAYESENS_DATA"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"what {ORIGIN}{name} sent is not the file that was published; try again, or from another network: a sign-in page "
            "may stand in its place"
        ) from error
    finally:
        log.setLevel(level)
    return Path(store.abspath)


def _table(folder: Path) -> pd.DataFrame:
    """Concatenate the stations' files, with station, cluster, fold and the mark of the copies before their columns."""
    sites = pd.read_csv(folder / SITES, index_col="sitename", keep_default_na=False)
    cluster, fold = sites["cluster"].replace("NA", "isolated").to_dict(), sites["iteration"].to_dict()
    parts = []
    for station in sorted(STATION_HASH):
        part = pd.read_csv(folder / _file(station), parse_dates=["time"])
        head = {
            "station": station,
            "cluster": cluster[station],
            "spatial_fold": fold[station],
            "insitu_is_copy_of_y7": station in COPIES,
        }
        parts.append(pd.concat([pd.DataFrame(head, index=part.index), part], axis=1))
    return pd.concat(parts, ignore_index=True)


def _of_years(table: pd.DataFrame, years: list[int], time: str = "time") -> pd.DataFrame:
    if not years:
        raise ValueError("years is empty; wanted years such as range(2016, 2020), or None for all")
    year = table[time].dt.year
    if unknown := sorted(set(years) - set(year)):
        raise ValueError(f"years has {listed(unknown)}; wanted years from {year.min()} to {year.max()}")
    return table[year.isin(years)]
