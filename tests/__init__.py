"""Before any test imports numpy or torch, and for the processes that tests start: one thread for each.

The tests' arrays are small. A pool of threads would mostly wait for itself, and
longer than the work takes where another worker has the cores.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
