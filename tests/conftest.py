"""What all tests share: two processes have a core each, where threads of BLAS would wait for each other in loops."""

import os

# Read by the processes that pytest-xdist starts, when they load numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
