"""Site-adapted bundles: what they subtract, which batches they refuse, and what `ball adapt` keeps."""

import base64
import json
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import ball_features
from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.calibration import tempered
from ball_features.bundles.site_use import answer_for, describe_sites, keep_site
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig, Saving
from ball_features.deployment.adapt import adapt
from ball_features.errors import ConfigError, DataError
from ball_features.models.adaptation import SiteAdapter
from ball_features.models.registry import MODELS
from ball_features.reporting.card import write_card
from ball_features.runs.fit import fit


@pytest.fixture(scope="module")
def groups(small_cache, tmp_path_factory):
    """A third of the images of each class to each site."""
    cache = read_cache(small_cache)
    file = tmp_path_factory.mktemp("groups") / "sites.csv"
    rows = [f"{path},{'abc'[number % 3]}" for number, path in enumerate(cache.path.tolist())]
    file.write_text("\n".join(["path,site", *rows]) + "\n")
    return file


@pytest.fixture(scope="module")
def run(small_cache, groups, tmp_path_factory):
    config = FitConfig(models=("logistic", "robust"), repeats=1, train_views="plain", adapt="auto", groups=str(groups))
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save=Saving("all", final=True))


@pytest.fixture
def bundle(run):
    return read_bundle(run.folder / "models" / "logistic")


@pytest.mark.slow
def test_a_bundle_subtracts_the_offset_of_the_site(bundle, small_cache):
    """As an independent fit on centred embeddings does."""
    cache = read_cache(small_cache)
    X = cache.embeddings[:, :1].astype(np.float32)
    site = np.array(["abc"[number % 3] for number in range(len(X))])
    codes = np.unique(cache.label, return_inverse=True)[1]
    adapter = SiteAdapter("auto").fit(X, codes, site)
    own = MODELS["logistic"].build(0, FitConfig().head).fit(adapter.center(X, site)[:, 0], codes)
    rows = site == "b"
    raw = own.predict_proba(X[rows, 0] - adapter.offsets_[1, 0])
    at_b = bundle.at_site("b")
    assert at_b is not None
    assert np.allclose(at_b.probability(X[rows]), tempered(raw, bundle.facts.temperature), atol=1e-4)
    raw = own.predict_proba(X[:, 0] - adapter.average[0])
    assert np.allclose(bundle.probability(X), tempered(raw, bundle.facts.temperature), atol=1e-4)
    assert bundle.facts.adapt == "auto"
    assert bundle.facts.sites == ("a", "b", "c")
    assert bundle.at_site("d") is None


def test_a_new_site_is_adapted_to_by_its_own_images(bundle, small_cache):
    """A site whose embeddings lie elsewhere altogether is classified as if they did not."""
    X = read_cache(small_cache).embeddings[:, :1].astype(np.float32)
    usual = bundle.probability(X).argmax(1)
    means = np.stack([X[usual == code].mean(0) for code in np.unique(usual)])
    moved = X + 0.5 * (means[1] - means[0])  # half of the images or more are taken for another class
    adapted, told = answer_for(bundle, "new", moved, mixed=True)
    assert "by 48 of its images" in told
    assert "not whether all are of another kind" in told
    assert bundle.novelty.elsewhere is not None
    assert adapted.unusual(moved, adapted.probability(moved)).mean() <= 0.1
    assert (bundle.probability(moved).argmax(1) == usual).mean() < 0.9
    items, notes = describe_sites(
        bundle,
        [str(n) for n in range(96)],
        np.concatenate([X, moved]),
        0.9,
        [""] * 48 + ["n"] * 48,
        mixed=["n"],
    )
    assert [item.path for item in items] == [str(n) for n in range(96)]
    assert [item.predicted for item in items[:48]] == [bundle.classes[code] for code in usual]
    assert len(notes) == 2
    assert notes[1].startswith("48 images name no site")
    assert not any("site" in note for note in adapted.notes(0.9))
    assert any("Name the site" in note for note in bundle.notes(0.9))


@pytest.mark.parametrize(
    ("rows", "reason"), [(slice(0, 9), "expected at least 10"), (slice(0, 12), "look like one class")]
)
def test_few_images_and_images_of_one_class_fall_back(bundle, small_cache, rows, reason):
    X = read_cache(small_cache).embeddings[rows, :1].astype(np.float32)
    X = X[:1] + 1e-5 * np.random.default_rng(0).normal(size=X.shape).astype(np.float32)  # one class without doubt
    own, told = answer_for(bundle, "new", X, mixed=True)
    assert own.offset is not None
    assert bundle.offset is not None
    assert reason in told
    assert np.array_equal(own.offset, bundle.offset)


def test_copies_of_an_image_are_one_image(bundle, small_cache):
    X = read_cache(small_cache).embeddings[:, :1]
    _, told = answer_for(bundle, "new", np.repeat(X[::8], 5, axis=0), mixed=True)
    assert "6 images, expected at least 10" in told
    twice = bundle.adapt(np.concatenate([X, X[::-1]]))
    assert np.array_equal(twice.offset, bundle.adapt(X).offset)
    assert twice.images == len(X)


@pytest.mark.parametrize("name", ["A", " a", "a "])
def test_a_site_that_is_nearly_a_known_one_is_said(bundle, small_cache, run, smears, tmp_path, name):
    _, told = answer_for(bundle, name, read_cache(small_cache).embeddings[:, :1], mixed=True)
    assert told.endswith("The bundle knows 'a': if that is the site, write its name so.")
    with pytest.raises(DataError, match="the bundle knows 'a', whose name differs"):
        adapt(run.folder / "models" / "logistic", smears, name, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_plain_bundle_has_no_sites(small_cache, smears, tmp_path):
    run = fit(small_cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path, save="logistic")
    with pytest.raises(ConfigError, match="not site-adapted"):
        ball_features.predict(run.bundles[0], smears / "Pro", site="x")
    files = sorted((smears / "Pro").iterdir())[:2]
    (tmp_path / "s.csv").write_text("path,hospital\n" + "".join(f"{file},x\n" for file in files))
    with pytest.raises(ConfigError, match="not site-adapted"):
        ball_features.predict(run.bundles[0], files, sheet=str(tmp_path / "s.csv"))
    (tmp_path / "p.csv").write_text("path,hospital,patient\n" + "".join(f"{file},x,1\n" for file in files))
    found = ball_features.predict(run.bundles[0], files, sheet=str(tmp_path / "p.csv"))
    assert len(found.patients) == 1
    assert any("change nothing" in remark for remark in found.remarks)
    with pytest.raises(ConfigError, match="not site-adapted"):
        adapt(run.bundles[0], smears, "x")
    assert not run.bundles[0].with_name("logistic-x").exists()


@pytest.mark.parametrize(
    "site",
    ["../../x", "a/b", "", " ", ".", "..", "a\0b", "x" * 300, "\u524d" * 40, "a\nb", "a\x1b[31mb", "/etc", "\udc80\r"],
)
def test_a_site_whose_name_is_no_name_is_refused(run, smears, site):
    folder = run.folder / "models" / "logistic"
    before = sorted(str(path) for path in run.folder.parent.rglob("*"))
    with pytest.raises(
        ConfigError, match="expected a name of at most 100 bytes without slashes and control characters"
    ):
        adapt(folder, smears, site)
    assert sorted(str(path) for path in run.folder.parent.rglob("*")) == before


@pytest.mark.slow
def test_the_command_keeps_a_site(run, smears, tmp_path):
    """A copy answers for the site; the old bundle stays as it is, and a refusal writes nothing."""
    folder, out = run.folder / "models" / "logistic", tmp_path / "kept"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    command = ["adapt", str(folder), str(smears), "--site", "new", "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ConfigError) and refused.exception.option == "mixed"
    assert "holds no trial of batches of one class" in str(refused.exception) and not out.exists()
    done = CliRunner().invoke(app, [*command, "--mixed"])
    assert done.exit_code == 0, done.output
    assert "Adapted to new by 48 images" in done.output
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    kept = read_bundle(out)
    assert (kept.facts.site, kept.facts.kept_sites) == ("new", ("new",))
    found = ball_features.predict(out, smears / "Pro")
    again = ball_features.predict(folder, smears / "Pro")
    named = ball_features.predict(folder, smears, site="new", mixed=True)
    alone = ball_features.predict(folder, smears, site="new")
    assert alone.notes[0].startswith("Not adapted to new: the bundle holds no trial")
    assert "say so by the option mixed" in alone.notes[0]
    with pytest.raises(ConfigError, match="without a site"):
        ball_features.predict(folder, smears, mixed=True)
    by_path = {item.path: item for item in named.predictions}
    for item in found.predictions:
        assert item.probability == pytest.approx(by_path[item.path].probability, abs=0.02)
    assert "Site-adapted to new by 48" in named.notes[0]
    assert not any("Name the site" in note for note in named.notes)
    assert any("Name the site" in note for note in again.notes)
    files = sorted(smears.rglob("*.jpg"))[:14]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("path,site\n" + "".join(f"{file},{'b' if n < 12 else 'few'}\n" for n, file in enumerate(files)))
    sited = ball_features.predict(folder, files, sheet=str(sheet))
    at_b = ball_features.predict(folder, files[:12], site="b")
    for item, other in zip(sited.predictions[:12], at_b.predictions, strict=True):
        assert item.probability == pytest.approx(other.probability, abs=0.02)
    assert [note.split(":")[0] for note in sited.notes[:2]] == [
        "Site-adapted to b, a training site.",
        "Not adapted to few",
    ]
    assert not any("Name the site" in note for note in found.notes)
    for images, site, message in (
        (sorted((smears / "Pro").iterdir())[:9], "other", "9 images, expected at least 10"),
        (smears, "a", "training site"),
        (smears, "x/y", "without slashes"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            adapt(folder, images, site, mixed=True, out=tmp_path / "refused")
    assert not list(tmp_path.glob("refused*"))
    with pytest.raises(DataError, match="exists"):
        adapt(folder, smears, "new", mixed=True, out=out)
    late = tmp_path / "late"

    def come(*_):
        late.mkdir(exist_ok=True)
        (late / "mine").touch()

    with pytest.raises(DataError, match=r"late was made by another program while .* The copy is .*late-2"):
        adapt(folder, smears, "new", mixed=True, out=late, progress=come)
    assert [path.name for path in late.iterdir()] == ["mine"]
    assert (tmp_path / "late-2" / "bundle.json").exists()


def test_a_copy_of_a_bundle_lies_in_no_bundle(run, smears):
    folder = run.folder / "models" / "logistic"
    with pytest.raises(DataError, match=r"holds a saved model, which further files would damage\. Give another folder"):
        adapt(folder, smears, "new", mixed=True, out=folder / "sub" / "copy")
    assert {path.name for path in folder.iterdir()} == BUNDLE


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", ".."])
def test_a_copy_lies_beside_a_bundle_that_is_named_by_dots(run, smears, tmp_path, monkeypatch, place):
    folder = tmp_path / "logistic"
    shutil.copytree(run.folder / "models" / "logistic", folder)
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep" if place == ".." else folder)
    assert adapt(place, smears, "new", mixed=True).folder == tmp_path / "logistic-new"
    assert {path.name for path in (tmp_path / "logistic-new").iterdir()} == BUNDLE


BUNDLE = {"SHA256SUMS", "bundle.json", "model.skops", "reference.safetensors"}


def kept_copy(folder, out, small_cache):
    bundle = read_bundle(folder)
    shift = bundle.adapt(read_cache(small_cache).embeddings[:, :1].astype(np.float32))
    keep_site(bundle, folder, out, "new", shift)
    assert read_bundle(out).facts.site == "new"
    return {path.name for path in out.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_copy_has_the_files_of_a_bundle_and_follows_no_link_beside_them(run, small_cache, tmp_path):
    folder, private = tmp_path / "b", tmp_path / "private"
    shutil.copytree(run.folder / "models" / "logistic", folder)
    private.mkdir()
    (private / "secret.txt").write_text("secret")
    (folder / "README").symlink_to(private / "secret.txt")
    (folder / "parameters.json").symlink_to(private / "secret.txt")  # which a model of this kind does not have
    (folder / "SHA256SUMS").unlink()
    (folder / "extra").symlink_to(private, target_is_directory=True)
    for name in "abc":
        (folder / name).symlink_to(".", target_is_directory=True)
    (folder / "sub").mkdir()
    (folder / "sub" / "z").symlink_to("/dev/zero")
    os.mkfifo(folder / "sub" / "pipe")
    (folder / "notes.md").write_text("of the user's")
    assert kept_copy(folder, tmp_path / "out", small_cache) == BUNDLE


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("name", ["model.skops", "reference.safetensors"])
def test_a_file_of_a_bundle_that_is_a_link_is_copied_only_if_its_bytes_are_stated(run, small_cache, tmp_path, name):
    folder = tmp_path / "b"
    shutil.copytree(run.folder / "models" / "logistic", folder)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert kept_copy(folder, tmp_path / "out", small_cache) == BUNDLE
    assert not (tmp_path / "out" / name).is_symlink()
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match="is a link, and SHA256SUMS, which would tell"):
        kept_copy(folder, tmp_path / "again", small_cache)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "elsewhere", "out"]


@pytest.mark.slow
def test_the_first_split_s_model_can_be_saved_too(small_cache, groups, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 2)
    config = FitConfig(protocol="leave-site-out", models=("logistic",), repeats=1, adapt="balanced", groups=str(groups))
    run = fit(small_cache, config, out_root=tmp_path, save="best")
    bundle = read_bundle(run.bundles[0])
    assert bundle.facts.sites == ("b", "c")
    assert bundle.facts.left_out == "a"
    assert "site-adapted" in {finding.code for finding in run.findings}
    assert "site-adapted" in run.title
    card = write_card(bundle, run.bundles[0], tmp_path / "card.md").read_text(encoding="utf-8")
    assert "site-adapted" in card.lower()
    assert json.loads((run.bundles[0] / "bundle.json").read_text())["adapt"] == "balanced"
    assert bundle.facts.test is not None
    with (run.folder / "metrics.json").open() as file:
        assert json.load(file)["models"][0]["model"] == "logistic"


@pytest.mark.parametrize(
    "name", ["gaussian_mean", "scale_values", "site_offsets", "gaussian_variance", "scale_largest"]
)
def test_arrays_that_do_not_belong_together_are_damage(run, emptied, name):
    with pytest.raises(DataError, match="damaged"):
        read_bundle(emptied(run.folder / "models" / "logistic", name))


@pytest.mark.slow
def test_the_server_answers_for_a_site_that_the_bundle_knows_and_refuses_another(run, small_cache, smears):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from ball_features.bundles.prediction import describe
    from ball_features.bundles.predictor import Predictor
    from ball_features.deployment.serve import create_app

    bundle = read_bundle(run.folder / "models" / "logistic")
    predictor = Predictor(bundle, device="cpu", precision="fp32")
    file = sorted((smears / "Early").iterdir())[0]
    X = predictor.embed_all([file]).X
    octets = {"Content-Type": "application/octet-stream"}
    with TestClient(create_app(predictor), base_url="http://127.0.0.1") as http:
        assert http.get("/healthz").json()["sites"] == ["a", "b", "c"]
        answers = {}
        for site in ("", "b", "c"):
            found = http.post("/v1/predict", params={"site": site}, content=file.read_bytes(), headers=octets).json()
            own = bundle.at_site(site) or bundle
            assert found["probability"] == pytest.approx(describe(own, [""], X, 0.9)[0].probability, abs=1e-3)
            assert any("Name the site" in note for note in found["notes"]) == (site == "")
            assert any("Site-adapted to b" in note for note in found["notes"]) == (site == "b")
            answers[site] = found["probability"]
        assert answers["b"] != answers["c"]
        refused = http.post("/v1/predict", params={"site": "d"}, content=file.read_bytes(), headers=octets)
        assert refused.status_code == 422 and "expected one that the bundle knows: a, b, c" in refused.json()["detail"]
        body = {"images": [{"data": base64.b64encode(file.read_bytes()).decode()}]}
        reply = http.post("/v1/patients", params={"site": "b"}, json=body)
        assert reply.json()["answers"][0]["probability"] == pytest.approx(answers["b"], abs=1e-6)
        assert http.post("/v1/patients", params={"site": "d"}, json=body).status_code == 422


@pytest.mark.slow
def test_the_server_refuses_a_site_for_a_plain_bundle(small_cache, tmp_path):
    from ball_features.deployment.site_requests import bundle_of_site

    run = fit(small_cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path, save="logistic")
    plain = read_bundle(run.bundles[0])
    assert bundle_of_site(plain, "") is plain
    with pytest.raises(ConfigError, match="not site-adapted"):
        bundle_of_site(plain, "x")
