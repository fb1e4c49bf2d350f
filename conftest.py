"""One thread for each of the processes that tests run in: more would wait for one another."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
