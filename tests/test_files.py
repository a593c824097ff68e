"""What cannot be written is said before the work, and trying leaves nothing behind."""

from pathlib import Path

import pytest

from ball_features import ExtractConfig, FitConfig, extract, fit
from ball_features.cache import lock_cache
from ball_features.demo import demo
from ball_features.errors import CacheBusyError, CacheError, DataError
from ball_features.files import require_folder, require_writable
from ball_features.runs.compare import compare
from ball_features.runs.ladder import ladder
from ball_features.runs.tune import tune


def test_files(tmp_path):
    require_writable(None)
    require_writable(tmp_path / "new" / "groups.csv")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "groups.csv", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=r"cannot be written .*Name another file"):
            require_writable(path)
    assert not (tmp_path / "new" / "groups.csv").exists()  # trying leaves nothing behind
    with pytest.raises(DataError, match=r"cannot be written"):
        require_writable(Path("/proc/groups.csv"))  # whose permissions allow it
    image = tmp_path / "smear.JPG"
    image.write_bytes(b"pixels")
    with pytest.raises(DataError, match=r"is an image and would be overwritten\. Name another file"):
        require_writable(image)
    assert image.read_bytes() == b"pixels"


def test_folders(tmp_path):
    require_folder(tmp_path / "new" / "runs")
    assert not list((tmp_path / "new" / "runs").iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc")):
        with pytest.raises(DataError, match=r"cannot be written to .*Give another --out"):
            require_folder(path)


def test_no_model_is_fitted_where_no_run_can_be_written(tmp_path, small_cache, smears):
    def progress(done, total, name=""):
        pytest.fail("it began all the same")

    (tmp_path / "file").touch()
    groups = tmp_path / "groups.csv"
    names = [path.relative_to(smears).as_posix() for path in sorted(smears.rglob("*.jpg"))]
    groups.write_text("path,group,series\n" + "".join(f"{name},{name},{name.split('/')[0]}\n" for name in names))
    config = FitConfig(models=("logistic",), repeats=1, jobs=1)
    to = {"out_root": tmp_path / "file", "progress": progress}
    other = tmp_path / "other.h5"
    other.write_bytes(small_cache.read_bytes())
    for begin in (
        lambda: fit(small_cache, config, **to),
        lambda: compare([str(small_cache), str(other)], config, **to),
        lambda: tune(small_cache, FitConfig(jobs=1), trials=1, **to),
        lambda: ladder(small_cache, FitConfig(models=("logistic",), groups=str(groups), jobs=1), **to),
    ):
        with pytest.raises(DataError, match=r"cannot be written to .*Give another --out"):
            begin()


def test_a_cache_that_cannot_be_locked_is_not_busy(tmp_path, smears):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.h5", Path("/proc/a.h5")):
        with pytest.raises(CacheError, match="cannot be written") as caught, lock_cache(path):
            pass
        assert not isinstance(caught.value, CacheBusyError)
    with pytest.raises(CacheError, match=r"cannot be written .*Give another --out"):
        extract(smears, "/proc/a.h5", ExtractConfig(weights="random", backbone="densenet121"))


def test_a_demonstration_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*Give another --out"):
        demo(tmp_path / "file" / "demo")
