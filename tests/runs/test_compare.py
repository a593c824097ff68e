"""One table over several caches: the same images and splits, shortcuts once, tests against the best."""

import io

import numpy as np
import pytest
from rich.console import Console

from ball_features import ExtractConfig, FitConfig, extract, fit, read_cache
from ball_features.config.paths import shareable_text
from ball_features.errors import CacheError, ConfigError
from ball_features.evaluation.rows import CompareRow, read_rows
from ball_features.files import read_csv
from ball_features.reporting.run_tables import render_comparison
from ball_features.runs.compare import compare
from tests.made import clouds, write_cache

SMALL = {"backbone": "mobilenet_v3_large", "weights": "random", "precision": "fp32", "input_px": 64}
CONFIG = FitConfig(models=("logistic", "colour"), repeats=2, test_size=0.3, val_size=0.2)


@pytest.fixture(scope="module")
def other(tmp_path_factory, smears):
    out = tmp_path_factory.mktemp("other") / "other.h5"
    settings = {"channels": ("original", "segmented"), "twins": "none"}
    extract(smears, out, ExtractConfig(**SMALL, **settings))
    return out


@pytest.mark.slow
def test_rows_are_those_of_single_runs(small_cache, other, tmp_path):
    run, rows = compare([str(small_cache), f"{other}:original", f"{other}:mean", str(other)], CONFIG, out_root=tmp_path)
    assert {row.cache for row in rows if row.cache} == {
        "densenet121",
        "mobilenet_v3_large",
        "mobilenet_v3_large:original~segmented",
        "mobilenet_v3_large:original+segmented",
    }
    assert [row.model for row in rows].count("colour") == 1
    assert {row.dim for row in rows} == {0, 960, 1024, 1920}
    assert np.isfinite([row.images_per_s for row in rows if row.dim]).all()
    alone = fit(small_cache, CONFIG, out_root=tmp_path)
    by_model = {row.model: row for row in alone.metrics}
    row = next(row for row in rows if row.backbone == "densenet121")
    assert row.accuracy == by_model["logistic"].accuracy
    assert (run.folder / "splits.csv").read_bytes() == (alone.folder / "splits.csv").read_bytes()
    assert [row.to_dict() for row in read_rows(run.folder / "compare.csv", CompareRow)] == [
        pytest.approx(row.to_dict(), nan_ok=True) for row in rows
    ]
    assert (run.folder / "report.html").is_file()
    assert "| none |  | colour" in (run.folder / "compare.md").read_text()


@pytest.mark.slow
def test_rows_in_another_order_are_brought_together(small_cache, smears, tmp_path):
    """A cache whose rows were permuted gives the same predictions."""
    import h5py

    other = tmp_path / "other.h5"
    other.write_bytes(small_cache.read_bytes())
    order = np.random.default_rng(0).permutation(48)
    with h5py.File(other, "r+") as file:
        del file["checksums"]
        for name in ("embeddings", "path", "label", "sha256", *(f"shortcuts/{key}" for key in file["shortcuts"])):
            file[name][...] = file[name][:][order]
    _, rows = compare([str(small_cache), str(other)], CONFIG, out_root=tmp_path)
    first, second = (row for row in rows if row.kind != "shortcut")
    assert {first.cache, second.cache} == {"small", "other"}
    assert first.accuracy == second.accuracy
    assert second.ties_best


@pytest.mark.slow
def test_what_any_cache_knows_of_an_image_holds_for_the_comparison(tmp_path):
    """Patients that only the second cache names are not divided, and the order of the caches changes nothing."""
    embeddings, label = clouds(20)
    patient = [f"p{row // 4}" for row in range(len(label))]
    some = ["" if row % 2 else name for row, name in enumerate(patient)]
    plain = write_cache(tmp_path / "plain.h5", embeddings, label)
    named = write_cache(tmp_path / "named.h5", embeddings * 2, label, {"patient": patient})
    half = write_cache(tmp_path / "half.h5", embeddings * 3, label, {"patient": some})
    other = write_cache(tmp_path / "other.h5", embeddings * 4, label, {"patient": ["x", *patient[1:]]})
    splits = []
    for caches in ((plain, named), (named, plain), (half, plain, named)):
        run, _ = compare([str(cache) for cache in caches], CONFIG, out_root=tmp_path)
        splits.append((run.folder / "splits.csv").read_text(encoding="utf-8"))
        rows = [row for row in read_csv(run.folder / "splits.csv") if row["repeat"] == "0"]
        parts = {}
        for row in rows:
            parts.setdefault(patient[int(row["path"].split("/")[1].split(".")[0])], set()).add(row["split"])
        assert {len(own) for own in parts.values()} == {1}
    assert len(set(splits)) == 1
    with pytest.raises(CacheError, match=r"another patient for 1 of 80 images, such as x and p0 for Benign/00000\.png"):
        compare([str(named), str(other)], CONFIG, out_root=tmp_path)


@pytest.mark.slow
def test_caches_of_one_file_name_are_told_apart(small_cache, tmp_path):
    """Same network, same file name, other numbers: each has a row of its own."""
    import h5py

    paths = [tmp_path / folder / "all.h5" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(small_cache.read_bytes())
    with h5py.File(paths[1], "r+") as file:
        numbers = file["embeddings"][:]
        file["embeddings"][...] = np.random.default_rng(0).permutation(numbers)
        for name in [name for name in file if name.startswith("check")]:
            del file[name]
    run, rows = compare([str(path) for path in paths], CONFIG, out_root=tmp_path)
    first, second = (row for row in rows if row.model == "logistic")
    told = [shareable_text(str(path)) for path in paths]
    assert {first.cache, second.cache} == {*told}
    assert first.accuracy > second.accuracy
    assert first.cache == told[0]
    assert len({row.model for row in run.metrics}) == 3
    lines = (run.folder / "compare.md").read_text().splitlines()
    assert lines[0].startswith("| cache |")
    assert all(any(f"{path} (densenet121)" in line for line in lines) for path in told)
    shown = Console(width=500, file=io.StringIO(), record=True)
    shown.print(render_comparison(rows, "title", 500))
    text = "".join(shown.export_text().split())
    assert all(str(path)[-20:] in text for path in paths)


@pytest.mark.slow
def test_nothing_is_fitted_before_every_cache_is_known_to_fit(small_cache, smears, other, tmp_path, monkeypatch):
    import h5py

    def fitted(*arguments, **options):
        raise AssertionError("a model was fitted")

    monkeypatch.setattr("ball_features.runs.compare.evaluate", fitted)
    extract(smears, tmp_path / "few.h5", ExtractConfig(**SMALL, limit=20))
    with pytest.raises(CacheError, match="28 of 48 are not in it"):
        compare([str(small_cache), str(other), str(tmp_path / "few.h5")], CONFIG, out_root=tmp_path)
    relabelled = tmp_path / "relabelled.h5"
    relabelled.write_bytes(small_cache.read_bytes())
    with h5py.File(relabelled, "r+") as file:
        del file["checksums"]
        file["label"][0] = "Pro"
    with pytest.raises(CacheError, match="labels images otherwise"):
        compare([str(small_cache), str(other), str(relabelled)], CONFIG, out_root=tmp_path)


@pytest.mark.slow
def test_the_views_that_a_model_saw_are_shown(small_cache, smears, tmp_path):
    extract(smears, tmp_path / "fixed.h5", ExtractConfig(**SMALL, recipe="grey,haematoxylin", views=3))
    config = FitConfig(models=("logistic", "robust-views"), repeats=1, test_size=0.3, val_size=0.2)
    run, rows = compare([str(small_cache), str(tmp_path / "fixed.h5")], config, out_root=tmp_path)
    names = read_cache(small_cache, embeddings=False).view
    seen = {(row.backbone, row.model): row.views for row in rows}
    assert seen["densenet121", "logistic"] == f"plain, {names[1]}; tested: plain"  # the drawn view trains
    assert seen["mobilenet_v3_large", "logistic"] == "plain"  # of three, two of which are fixed
    assert seen["mobilenet_v3_large", "robust-views"] == "grey-1, haematoxylin-2"
    lines = [line for line in (run.folder / "compare.md").read_text().splitlines() if "mobilenet" in line]
    assert ["haematoxylin" in line for line in lines] == ["robust-views" in line for line in lines]


@pytest.mark.slow
def test_other_images_are_refused(small_cache, smears, tmp_path):
    extract(smears, tmp_path / "few.h5", ExtractConfig(**SMALL, limit=20))
    with pytest.raises(CacheError, match="28 of 48 are not in it"):
        compare([str(small_cache), str(tmp_path / "few.h5")], CONFIG, out_root=tmp_path)
    with pytest.raises(ConfigError, match="two or more"):
        compare([str(small_cache)], CONFIG, out_root=tmp_path)
    with pytest.raises(ConfigError, match="shortcuts only"):
        compare([str(small_cache), "x.h5"], FitConfig(models=("colour",)), out_root=tmp_path)


@pytest.mark.slow
def test_a_cache_without_nuclei_numbers_still_fits(small_cache, tmp_path):
    import h5py

    old = tmp_path / "old.h5"
    old.write_bytes(small_cache.read_bytes())
    with h5py.File(old, "r+") as file:
        del file["checksums"]
        del file["shortcuts/nuclei"]
        del file["timing"]
    run = fit(old, FitConfig(repeats=1, test_size=0.3, val_size=0.2, head={"epochs": 1}), out_root=tmp_path)
    assert "nuclei" not in [row.model for row in run.metrics]
    assert any("nuclei" in note for note in run.notes)
    assert np.isnan(read_cache(old).images_per_s)
    with pytest.raises(CacheError, match="no nuclei statistics"):
        fit(old, FitConfig(models=("nuclei",), repeats=1), out_root=tmp_path)


def test_a_cache_is_compared_with_others(small_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(small_cache.parent)
    for given, count in ((str(small_cache), 1), ([small_cache.name, f"./{small_cache.name}"], 2)):
        with pytest.raises(ConfigError, match=f"Got {count} caches .*, expected two or more different ones"):
            compare(given, out_root=tmp_path)
