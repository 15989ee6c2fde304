"""One thread for small trees too: threads of OpenMP wait for one another, on a busy machine for long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before scikit-learn is imported
