import json

import pytest

from genjax import files


def test_files_are_written_whole(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1})
    files.write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_fails_in_the_middle_leaves_the_old_file_alone(tmp_path):
    files.write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match="full: .*a"):
        with files.whole_file(tmp_path / "a") as partial:
            partial.write_text("ne")
            raise OSError(28, "full")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
