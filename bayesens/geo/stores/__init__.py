"""Maps as files: Zarr, NetCDF and Cloud-Optimised GeoTIFF, written tile by tile; `write` has the call for users."""
