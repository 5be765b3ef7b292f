"""Tests of the parts of contact sheets that several pictures share."""

from mindcv.engine.contact_sheet import short_paths


def test_short_paths_show_folders_when_files_have_the_same_name():
    assert short_paths(["a/x/1.png", "b/x/1.png", "b/2.png"]) == ["a/x/1.png", "b/x/1.png", "2.png"]
    assert short_paths(["a/1.png", "a/1.png"]) == ["1.png", "1.png"]
