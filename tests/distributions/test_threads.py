"""Threads of ours and threads of BLAS: never both."""

import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from bayesens.threads import one_blas_thread, share_out


def blas_threads():
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


@pytest.fixture
def two():
    """Two threads of BLAS, however many the tests have."""
    import scipy.linalg  # noqa: F401  (it has a library of its own)

    with threadpool_limits(2, user_api="blas"):
        yield blas_threads()


def test_parts_side_by_side_have_one_thread_of_blas_each(two):
    assert set(two) == {2}
    assert share_out(lambda part: set(blas_threads()), 4, parts=2) == [{1}, {1}]
    assert blas_threads() == two
    assert share_out(lambda part: set(blas_threads()), 4, parts=1) == [{2}]


def test_the_number_is_given_back_when_a_part_fails(two):
    def fails(part):
        raise ValueError("a part")

    with pytest.raises(ValueError, match="a part"):
        share_out(fails, 4, parts=2)
    assert blas_threads() == two


def test_blocks_that_overlap_give_the_number_back_once(two):
    """Threads of a program: the first one to begin is the first one to end, and the other is still at work."""
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == two


FORKED = """
import os
from bayesens import threads

with threads._ONE_BLAS_THREAD.lock:  # as a thread that begins a block while another one forks
    child = os.fork()
    if not child:
        os._exit(threads.share_out(lambda part: part.stop, 4, parts=2) != [2, 4])
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_a_block_begins_does_not_wait_for_ever():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
