"""What is compiled is found on disk, and what comes next is compiled by a second process."""

from bayesens.c_functions import _on_disk, address_of, compiled_beside
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
