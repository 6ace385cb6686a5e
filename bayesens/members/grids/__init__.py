"""Members on grids: what a table's rows get, for the cells of arrays with any dimensions, in memory or of dask."""
