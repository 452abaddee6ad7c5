"""Errors are data: fields in, one line out."""

import pickle

import pytest

from crossdiff_cli.errors import CrossDiffError, OutputError, SceneError


class ExampleError(SceneError):
    problem = "the image has too many bands"
    cure = "name the bands with --bidx"


def test_the_line_names_path_problem_numbers_and_cure():
    error = ExampleError(path="a.tif", found="1100 bands", expected="at most 1024")
    assert str(error) == (
        "a.tif: the image has too many bands (found 1100 bands, expected at most 1024); name the bands with --bidx"
    )
    assert (error.path, error.found, error.expected) == ("a.tif", "1100 bands", "at most 1024")


def test_parts_that_are_not_given_leave_no_trace():
    assert str(OutputError("the disk is full")) == "the disk is full"
    assert str(OutputError("the file exists", path="b.tif", cure="give --overwrite")) == (
        "b.tif: the file exists; give --overwrite"
    )
    assert str(CrossDiffError("too small", found=3)) == "too small (found 3)"


@pytest.mark.parametrize(
    "error", [ExampleError(path="a.tif", found=3), OutputError("full", path="b", cure="free some")]
)
def test_fields_survive_the_way_from_a_worker(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.path, copy.found) == (str(error), error.path, error.found)


def test_a_word_longer_than_any_path_is_shortened():
    assert len(str(SceneError("no such file", path="x" * 5000))) < 500
