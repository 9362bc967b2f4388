import json

import pytest

from genjax import files
from genjax.data.sources import find_source
from genjax.errors import UserError
from tests.conftest import ROOT


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


@pytest.mark.parametrize(
    "path, says",
    [
        ("gs://bucket/run", "not a path on this machine"),
        ("s3://bucket", "not a path on this machine"),
        ("gs:/bucket/run", "not a path on this machine"),
        (r"C:\runs", "not a path on this machine"),
        ("file:///tmp/x", "not a path on this machine"),
        ("", "is empty"),
        (" ", "is empty"),
        ("a\0b", "zero byte"),
        ("~nobody-of-that-name/x", "home directory"),
    ],
)
def test_what_cannot_be_a_path_is_one_line(path, says):
    with pytest.raises(UserError, match=says) as error:
        files.user_path(path, "--workdir")
    assert "--workdir" in str(error.value) and "\n" not in str(error.value)


def test_paths_are_expanded_and_otherwise_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/runs", "x") == tmp_path / "runs"
    for path in ("runs/a:b", "a b", "caf\udce9", "../x", "$HOME/x", "x~"):
        assert str(files.user_path(path, "x")) == path
    monkeypatch.delenv("GENJAX_CACHE")
    for variable, folder in (("XDG_CACHE_HOME", "c/genjax"), ("GENJAX_CACHE", "c")):
        monkeypatch.setenv(variable, "~/c")
        assert files.cache_root() == tmp_path / folder
        monkeypatch.setenv(variable, "gs://b")
        with pytest.raises(UserError, match=variable):
            files.cache_root()
        monkeypatch.setenv(variable, "")
        assert files.cache_root() == tmp_path / ".cache" / "genjax"


def test_every_path_goes_through_one_function():
    """No program, config or reader expands a path on its own."""
    rooms = [ROOT / name for name in ("genjax", "experiments", "benchmarks", "faults", "configs")]
    sources = [path for room in rooms for path in room.rglob("*.py")] + [ROOT / "launch.py"]
    expanding = {p.name for p in sources if "expanduser" in p.read_text()}
    assert expanding == {"files.py"}


@pytest.mark.parametrize(
    "name, says",
    [
        ("folder:gs://b/x", "folder=gs://b/x is not a path"),
        ("npz:gs://b/x.npz", "npz=gs://b/x.npz is not a path"),
        ("codes:s3://b/x.npz", "is not a path"),
        ("picture:gs://b/x.png", "is not a path"),
        ("gs://b/mnist", "is not a path"),
        ("folder:", "is empty"),
        ("/data/pictures", "say folder:/data/pictures"),
        ("~/images.npz", "say npz:~/images.npz"),
    ],
)
def test_data_that_is_no_path_here(name, says):
    with pytest.raises(UserError, match=says):
        find_source(name, "train")


def test_a_data_dir_in_a_bucket():
    with pytest.raises(UserError, match="config.data.data_dir=gs://b is not a path"):
        find_source("mnist", "train", "gs://b")


def test_text_that_is_not_unicode_is_escaped(tmp_path):
    files.write_text(tmp_path / "a", "caf\udce9 日本")
    assert (tmp_path / "a").read_text("utf-8") == r"caf\udce9 日本"


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    (tmp_path / "a").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    assert "git lfs pull" in files.lfs_hint(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"PK\3\4")
    assert files.lfs_hint(tmp_path / "b") == files.lfs_hint(tmp_path / "none") == ""
