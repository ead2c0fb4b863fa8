"""NumPy's linear algebra on one thread; imported before NumPy is, which reads this once.

Some contenders fit with NumPy: threads that wait for work would count as processor time.
"""

import os

for library in ("OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
