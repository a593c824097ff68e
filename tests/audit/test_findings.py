"""The audit on drawn smears with planted faults: what was planted is found, and nothing else."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from ball_features.audit import findings
from ball_features.audit.findings import audit, write_groups
from ball_features.audit.summary import AuditSummary
from ball_features.dataset.manifest import scan
from ball_features.dataset.synthetic import draw_smears
from ball_features.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    counts = {"duplicates": 3, "near_duplicates": 5, "shared_fields": 6}
    truth = draw_smears(folder, per_class=12, seed=4, overlay_share=0.8, **counts)
    return truth, audit(scan(folder))


def pair_names(found, kind):
    return {frozenset((found.path[p.first], found.path[p.second])) for p in found.pairs if p.kind == kind}


@pytest.mark.slow
def test_exact_duplicates(planted):
    truth, found = planted
    # A copy of a picture is a copy of all its planted relatives that are byte-identical.
    named = {frozenset(found.path[row] for row in rows) for rows in found.exact}
    assert named == {frozenset(pair) for pair in truth.duplicates}


@pytest.mark.slow
def test_near_duplicates_and_shared_fields(planted):
    truth, found = planted
    relatives = {}
    for a, b, *_ in [*truth.duplicates, *truth.near_duplicates, *truth.shared_fields]:
        own = relatives.get(a, {a}) | relatives.get(b, {b})
        for name in own:
            relatives[name] = own
    group = dict(zip(found.path.tolist(), found.group.tolist(), strict=True))
    wanted = [(a, b) for a, b, *_ in [*truth.near_duplicates, *truth.shared_fields]]
    assert np.mean([group[a] == group[b] for a, b in wanted]) >= 0.98
    reported = pair_names(found, "near-duplicate") | pair_names(found, "shared-field")
    right = [len({frozenset(relatives.get(name, {name})) for name in pair}) == 1 for pair in reported]
    assert len(reported) >= len(wanted) * 0.98
    assert np.mean(right) >= 0.98


@pytest.mark.slow
def test_the_shift_is_that_of_the_fields(planted):
    truth, found = planted
    rows = {name: row for row, name in enumerate(found.path.tolist())}
    known = {(p.first, p.second): p for p in found.pairs}
    errors = []
    for a, b, dx, dy in truth.shared_fields:
        pair = known.get((min(rows[a], rows[b]), max(rows[a], rows[b])))
        if pair is not None:
            sign = 1 if rows[a] < rows[b] else -1
            errors.append(max(abs(pair.shift_x_px - sign * dx), abs(pair.shift_y_px - sign * dy)))
    assert len(errors) >= 0.95 * len(truth.shared_fields)
    assert np.mean(np.array(errors) <= 1) >= 0.95


@pytest.mark.slow
def test_overlays(planted):
    truth, found = planted
    turned = {b for _, b in truth.near_duplicates}  # their bar is turned away with the picture
    seen = np.array([name not in turned for name in found.path])
    drawn = np.array([truth.overlay.get(name, "none") for name in found.path])[seen]
    agree = 0
    for kind in np.unique(found.overlay):
        _, counts = np.unique(drawn[found.overlay[seen] == kind], return_counts=True)
        agree += counts.max()
    assert len(np.unique(found.overlay)) == 4
    assert agree / len(drawn) >= 0.98
    for number in range(3):
        left, top, _, _ = found.overlays.box(number)
        assert min(left, top) > 224 / 2


@pytest.mark.slow
def test_groups_file(planted, tmp_path):
    _, found = planted
    write_groups(found, tmp_path / "groups.csv")
    with (tmp_path / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "group", "series", "batch", "overlay", "block", "duplicate_of"]
    assert [row["path"] for row in rows] == found.path.tolist()
    copies = [row for row in rows if row["duplicate_of"]]
    assert len(copies) == 12
    blocks = {}
    for row in rows:
        assert blocks.setdefault(row["group"], row["block"]) == row["block"]
    with pytest.raises(DataError, match="cannot be written"):
        write_groups(found, tmp_path)


@pytest.mark.slow
def test_a_clean_collection_has_no_findings(tmp_path):
    draw_smears(tmp_path, per_class=10, seed=9)
    found = audit(scan(tmp_path))
    assert found.exact == []
    assert found.pairs == []
    assert set(found.overlay) == {"none"}
    assert found.association_bits == pytest.approx(0, abs=1e-9)
    assert len(set(found.group)) == 40
    assert AuditSummary.of(found).to_dict()["shared_field_pairs"] == 0


def save_all(folder, images):
    """One PNG an image: (class, name) -> pixels."""
    for (label, name), pixels in images.items():
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{name}.png")


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("classes", "groups"), [("AB", 1), ("AB", 3), ("ABC", 1)])
def test_fewer_groups_than_folds(tmp_path, classes, groups):
    noise = np.random.default_rng(0).integers(0, 255, (3, 12, 12, 3), dtype=np.uint8)
    distinct = [np.asarray(Image.fromarray(own).resize((96, 96), Image.Resampling.BICUBIC)) for own in noise]
    blank = np.full((96, 96, 3), 200, dtype=np.uint8)
    images = distinct if groups == 3 else [blank] * 8
    save_all(tmp_path, {(name, number): own for name in classes for number, own in enumerate(images)})
    found = audit(scan(tmp_path))
    assert len(set(found.group)) == groups
    assert found.shortcuts["majority"] == pytest.approx(1 / len(classes))
    assert ("colour, grouped folds" in found.shortcuts) == (groups > 1)
    assert "colour, random folds" in found.shortcuts
    write_groups(found, tmp_path / "groups.csv")


@pytest.mark.slow
def test_a_reduction_is_a_near_duplicate_and_no_exact_one(tmp_path):
    draw_smears(tmp_path, per_class=2, seed=3, size_px=672)
    with Image.open(tmp_path / "Pro" / "WBC-Pro-001.jpg") as image:
        large = image.convert("RGB")
    large.save(tmp_path / "Pro" / "same.png")
    large.resize((224, 224), Image.Resampling.BOX).save(tmp_path / "Pro" / "third.png")
    found = audit(scan(tmp_path))
    assert [found.path[rows].tolist() for rows in found.exact] == [["Pro/WBC-Pro-001.jpg", "Pro/same.png"]]
    near = pair_names(found, "near-duplicate")
    assert near == {frozenset((name, "Pro/third.png")) for name in ("Pro/WBC-Pro-001.jpg", "Pro/same.png")}
    assert len(set(found.group)) == 8


@pytest.mark.slow
def test_odd_images_stop_no_audit(tmp_path):
    draw_smears(tmp_path, per_class=4, seed=3)
    black = np.zeros((224, 224, 3), dtype=np.uint8)
    speck, rows, long = black.copy(), black.copy(), np.full((10, 3000, 3), 90, dtype=np.uint8)
    speck[100:108, 100:108], rows[:2] = 255, 255
    for number, pixels in enumerate((black, black + 255, speck, rows, long, black[:9, :9])):
        Image.fromarray(pixels).save(tmp_path / "Benign" / f"odd-{number}.png")
    found = audit(tmp_path)
    assert len(found.path) == 4 * 4 + 6


@pytest.mark.slow
def test_a_label_conflict_joins_no_blocks(tmp_path):
    truth = draw_smears(tmp_path, per_class=3, seed=77)
    for name, other in (("Benign", "Early"), ("Early", "Pre")):
        shutil.copy(tmp_path / name / f"WBC-{name}-002.jpg", tmp_path / other / "again.jpg")
    found = audit(scan(tmp_path))
    assert len(found.conflicts) == 2
    assert len(set(found.group)) == len(truth.label)
    assert {(label, block) for label, block in zip(found.label, found.block, strict=True)} == {
        (name, number) for number, name in enumerate(("Benign", "Early", "Pre", "Pro"))
    }


@pytest.mark.slow
@pytest.mark.real_data
def test_a_sixth_of_the_known_data_set(real_images):
    """Thirty images of every hundred and eighty, since a field of view is on neighbours in file order."""
    whole = scan(real_images)
    left_out = [row for row, name in enumerate(whole.path) if int(name[-7:-4]) // 30 % 6 != 1]
    some = whole.without(dict.fromkeys(left_out, "left out"))
    found = audit(some)
    facts = AuditSummary.of(found).to_dict()
    assert len(found.path) == 600
    assert facts["exact_duplicate_pairs"] == len(some.sha256) - len(set(some.sha256)) == 2
    assert facts["near_duplicate_pairs"] + facts["shared_field_pairs"] > 180
    early = found.label == "Early"
    by_kind = {kind: (found.overlay[early] == kind).mean() for kind in np.unique(found.overlay)}
    red = max(by_kind, key=lambda kind: by_kind[kind])
    assert by_kind[red] == pytest.approx(0.58, abs=0.02)
    assert not (found.overlay[found.label == "Pro"] == red).any()
    marked = found.overlay != "none"
    named = np.char.add(np.char.add(found.label, "/"), found.overlay)
    assert (found.series.series[marked] == named[marked]).all()
    # The two halves of one series, with a gap of five hundred numbers between them, are stained differently.
    rows = np.flatnonzero(found.series.series == f"Pre/{red}")
    number = np.array([int(name[-7:-4]) for name in found.path[rows].tolist()])
    assert not set(found.series.batch[rows[number < 300]]) & set(found.series.batch[rows[number > 750]])
    assert len(np.unique(found.series.batch)) < 20


@pytest.mark.slow
def test_kinds_of_file_are_series_of_their_own(monkeypatch, tmp_path):
    """One class saved by another program: the audit names it, and what it gives away."""
    for search in ("find_pairs", "find_transformed"):  # in a clean collection they find nothing
        monkeypatch.setattr(findings, search, lambda *arguments, **named: [])
    draw_smears(tmp_path, per_class=20, seed=2)  # fewer of a kind are no kind
    for file in (tmp_path / "Pro").iterdir():
        with Image.open(file) as image:
            image.load()
        image.save(file, "JPEG", quality=60)
    found = audit(scan(tmp_path))
    assert {str(kind) for kind in np.unique(found.encoding)} == {"encoding-1", "encoding-2"}
    assert set(found.label[found.encoding == "encoding-2"]) == {"Pro"}
    assert {name.split("/")[2] for name in found.series.series} == {"encoding-1", "encoding-2"}
    # Pro for certain, and one of three others at random.
    assert found.shortcuts["kind of file, random folds"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((13, 8)),
        np.ones((11, 8)),
        np.ones(12),
        np.ones((12, 2, 4)),
        np.ones((12, 0)),
        np.full((12, 8), np.inf),
        [["a"] * 8] * 12,
    ],
)
def test_embeddings_of_other_images_are_refused(tmp_path, wrong):
    draw_smears(tmp_path, per_class=3, size_px=64)
    with pytest.raises(ConfigError, match=r"expected \(12, dim\): a row of finite numbers"):
        audit(tmp_path, embeddings=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("known", [0, 1, 2, 12])
def test_images_without_an_embedding_are_far_from_none(tmp_path, known):
    draw_smears(tmp_path, per_class=3, size_px=64)
    embeddings = np.full((12, 8), np.nan)
    embeddings[:known] = np.random.default_rng(0).normal(size=(known, 8))
    assert len(audit(tmp_path, embeddings=embeddings.tolist()).path) == 12
