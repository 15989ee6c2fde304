"""What the sidecar's process loads, and that numpy is the same afterwards. Each in a process of its own."""

import subprocess
import sys

LOAD = "import sys, numpy; from driftwatch import scipy_special; scipy_special.load()\n"


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, timeout=60)
    return done.stdout.decode()


def test_the_sidecar_loads_no_part_of_numpy_or_scipy_that_it_does_not_use() -> None:
    loaded = printed(LOAD + "import driftwatch.app, driftwatch.reference; print(*sys.modules)").split()
    heavy = {"numpy.f2py", "numpy.ma", "numpy.testing", "charset_normalizer", "unittest", "scipy.stats", "scipy.linalg"}
    assert heavy.isdisjoint(loaded)
    assert {"pandas", "pyarrow", "river", "plotly", "asyncio", "kafka"}.isdisjoint(loaded)
    assert "scipy.special" in loaded


def test_numpy_is_left_as_it_was_found() -> None:
    tell = "print(sorted(numpy.__all__), sorted(dir(numpy)))\n"
    ask = "import scipy.stats\nprint(numpy.ma.array([1]), numpy.f2py, scipy.stats.ks_2samp([1, 2], [2, 3]).pvalue)"
    before = printed("import numpy, scipy.special\n" + tell)
    after = printed(LOAD + tell + ask).splitlines(keepends=True)
    assert after[0] == before
    assert len(after) == 2
