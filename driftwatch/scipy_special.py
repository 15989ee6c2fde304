"""scipy.special, loaded without the parts of numpy that nothing here asks for.

SciPy keeps a copy of numpy's names (`scipy._lib.array_api_compat`), and copying them loads what numpy itself loads only
when it is asked for: f2py, and with it an encoding detector, the testing tools, masked arrays, polynomials. That is
7 MB of a sidecar that takes 70, and a twentieth of a second of its start.
"""

import sys

import numpy as np

UNUSED = frozenset({"ctypeslib", "f2py", "ma", "polynomial", "test", "testing"})


def load() -> None:
    """Imports it while numpy does not tell of those parts; numpy is left as it was found.

    Changes nothing where it is loaded already, or where numpy has no list of such parts.
    """
    lazy: set[str] = getattr(np, "__numpy_submodules__", set())
    hidden = lazy & UNUSED
    if "scipy.special" in sys.modules or not hidden:
        return
    names = np.__all__
    lazy -= hidden
    np.__all__ = [name for name in names if name not in hidden]
    try:
        import scipy.special  # noqa: F401
    finally:
        np.__all__ = names
        lazy |= hidden
