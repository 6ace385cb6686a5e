"""What is compiled is found on disk, and what comes next is compiled by a second process."""

import ctypes
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from bayesens.c_functions import _KEEP, _on_disk, address_of, compiled_beside
from bayesens.likelihoods.mixture import mixture_packed


def never_compiled(theta, data, index, out):
    return


def test_what_is_compiled_is_found_on_disk():
    address_of(mixture_packed)
    assert _on_disk(mixture_packed)
    assert not _on_disk(never_compiled)


def test_others_are_called_by_a_second_process_the_first_time_only(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(
        "from pathlib import Path\ndef make(): Path(__file__).with_suffix('.txt').touch()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with compiled_beside(mixture_packed, "beside:make"):
        pass
    assert not (tmp_path / "beside.txt").exists()
    with compiled_beside(never_compiled, "beside:make"):
        pass
    assert (tmp_path / "beside.txt").exists()


def test_where_no_process_can_be_started_this_one_goes_on(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with compiled_beside(never_compiled, "beside:make"):
        done = True
    assert done


def test_a_function_is_compiled_anew_when_a_file_changes_that_it_calls_into(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    inner = "import numba\n@numba.njit\ndef halve(x):\n    return x / 2{}\n"
    (tmp_path / "stamped_middle.py").write_text(
        "import numba\nfrom stamped_inner import halve\n@numba.njit\ndef quarter(x):\n    return halve(halve(x))\n"
    )
    (tmp_path / "stamped_outer.py").write_text(
        "from stamped_middle import quarter\ndef outer(x, out):\n    out[0] = quarter(x[0])\n"
    )

    def called() -> tuple[float, int]:
        for name in ("stamped_outer", "stamped_middle", "stamped_inner"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        outer = importlib.import_module("stamped_outer").outer
        address = address_of(outer, "void(float64*, float64*)")
        x, out = np.array([8.0]), np.zeros(1)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(x.ctypes.data, out.ctypes.data)
        return out[0], _KEEP[-1].cache_hits

    (tmp_path / "stamped_inner.py").write_text(inner.format(""))
    assert [called(), called()] == [(2.0, 0), (2.0, 1)]
    (tmp_path / "stamped_inner.py").write_text(inner.format(" + 100"))
    assert called() == (152.0, 0)


def test_compiled_code_calls_its_own_copies_of_what_it_calls(tmp_path, monkeypatch):
    """Copies of one name in two libraries are one function to a process, and sums of theirs differ in the last digit."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "in_many.py").write_text(
        "import numba\n"
        "@numba.njit(fastmath={'reassoc', 'contract'}, no_cpython_wrapper=True, no_cfunc_wrapper=True)\n"
        "def long(x):\n"
        "    out = 0.0\n"
        + "".join(f"    for i in range(len(x)):\n        out += x[i] ** {k} / (1.0 + x[i])\n" for k in range(2, 9))
        + "    return out\n"
        "def one(x, out):\n    out[0] = long(numba.carray(x, 8)) + long(numba.carray(out, 8))\n"
        "def other(x, out):\n    out[0] = long(numba.carray(x, 8)) - long(numba.carray(out, 8))\n"
    )
    for name in ("one", "other"):
        address_of(getattr(importlib.import_module("in_many"), name), "void(float64*, float64*)")
        functions = list(_KEEP[-1]._library._final_module.functions)
        linkages = {function.linkage.name for function in functions if not function.is_declaration}
        assert "long" in str(functions[0].module), "it is called, so that there is something to look at"
        assert linkages <= {"external", "private"}


def test_code_that_is_compiled_later_is_not_linked_to_a_copy_of_a_kernel(tmp_path):
    """The optimiser changes the arguments of a kernel's own copies: others that were linked to one by its name would end here."""
    (tmp_path / "in_both.py").write_text(
        "import numba\n"
        "@numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)\n"
        "def long(first, x, factor):\n    out = 0.0\n"
        + "".join(
            f"    for i in range(len(x)):\n        out += factor * x[i] ** {k} / (1.0 + x[i])\n" for k in range(2, 7)
        )
        + "    return out\n"
        "def kernel(x, out):\n"  # its copy needs neither the first argument nor the factor
        "    n = int(x[0])\n"
        "    out[0] = long(n, numba.carray(x, (n,)), 2.0) + long(n, numba.carray(out, (n,)), 2.0)\n"
        "    out[0] += long(n, numba.carray(out, (n + 1,)), 2.0)\n"
    )
    code = (
        "import numba, numpy as np\n"
        "from in_both import kernel, long\n"
        "from bayesens.c_functions import address_of\n"
        "address_of(kernel, 'void(float64*, float64*)')\n"
        "@numba.njit\n"
        "def later(first, x, factor):\n    return long(first, x, factor) + long(first, x[1:], factor)\n"
        "x = np.linspace(0.1, 1.0, 8)\n"
        "print(later(7, x, 5.0), sum(5.0 * (z**k / (1.0 + z)).sum() for z in (x, x[1:]) for k in range(2, 7)))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr}"
    got, expected = map(float, done.stdout.split())
    assert got == pytest.approx(expected, rel=1e-12)
