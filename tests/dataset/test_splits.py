from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping, read_grouping, read_groups
from ball_features.dataset.splits import ImageTable, given_leaks, make_splits
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError, SplitError


def collection(sizes, copies=0):
    label = np.repeat([f"c{index}" for index in range(len(sizes))], sizes)
    path = np.array([f"{name}/{row}.jpg" for row, name in enumerate(label)])
    sha = np.array([f"{row:064x}" for row in range(len(label))])
    for row in range(copies):
        sha[2 * row + 1] = sha[2 * row]
    return path, label, sha


def test_holdout_has_the_reports_shares_in_every_class():
    path, label, sha = collection([504, 985, 963, 804], copies=40)
    splits, notes = make_splits(FitConfig(repeats=3), ImageTable(path, label, sha))
    assert len(splits) == 3
    for split in splits:
        assert len(split.train) + len(split.val) + len(split.test) == 3256
        for name in np.unique(label):
            count = (label == name).sum()
            for rows, share in ((split.train, 0.64), (split.val, 0.16), (split.test, 0.20)):
                assert abs((label[rows] == name).sum() - share * count) <= 2
        for row in range(40):
            side = [2 * row in rows and 2 * row + 1 in rows for rows in (split.train, split.val, split.test)]
            assert sum(side) == 1
    assert not np.array_equal(splits[0].test, splits[1].test)
    assert "40 of 3256 images are byte-identical" in notes[0]


def test_small_sites_are_left_out_and_small_series_are_not():
    """A site that the user names is tested with a few images of a class to learn from; a series is only inferred."""
    path, label, sha = collection([60, 60, 45])
    site = np.array(["A", "B", "C"])[np.arange(len(label)) % 3]
    images = ImageTable(path, label, sha, site)
    splits, notes = make_splits(FitConfig(protocol="leave-site-out", repeats=1), images)
    assert [split.name for split in splits] == ["A", "B", "C"]
    assert "fewer than 50 images" in notes[0] and "A (c0 40, c1 40, c2 30)" in notes[0]
    for split in splits:
        assert set(label[split.train]) == set(label[split.val]) == {"c0", "c1", "c2"}
    with pytest.raises(SplitError, match="fewer than 50 images"):
        make_splits(FitConfig(protocol="leave-group-out", repeats=1), images)
    named = FitConfig(protocol="leave-group-out", group_column="ward", repeats=1)
    assert len(make_splits(named, images)[0]) == 3
    rare = np.concatenate([np.flatnonzero(label != "c2"), np.flatnonzero(label == "c2")[:12]])
    few = ImageTable(path[rare], label[rare], sha[rare], site[rare])
    with pytest.raises(SplitError, match="fewer than 10 images"):
        make_splits(FitConfig(protocol="leave-site-out", repeats=1), few)


def test_the_same_seed_gives_the_same_images_in_any_row_order():
    path, label, sha = collection([60, 40], copies=5)
    order = np.random.default_rng(0).permutation(100)
    a, _ = make_splits(FitConfig(repeats=1), ImageTable(path, label, sha))
    b, _ = make_splits(FitConfig(repeats=1), ImageTable(path[order], label[order], sha[order]))
    for part in ("train", "val", "test"):
        assert set(path[getattr(a[0], part)]) == set(path[order][getattr(b[0], part)])
    c, _ = make_splits(FitConfig(repeats=1, seed=1), ImageTable(path, label, sha))
    assert set(path[a[0].test]) != set(path[c[0].test])


@pytest.mark.slow
def test_every_image_has_the_same_chance_to_test():
    path, label, sha = collection([50, 50])
    splits, _ = make_splits(FitConfig(repeats=400), ImageTable(path, label, sha))
    tested = np.bincount(np.concatenate([split.test for split in splits]), minlength=100)
    assert abs(tested.mean() - 80) < 1
    assert 45 < tested.min() <= tested.max() < 115  # 80 with a deviation of 8


def test_cv_tests_each_image_once():
    path, label, sha = collection([53, 41, 30], copies=6)
    splits, _ = make_splits(FitConfig(protocol="cv", repeats=2, folds=4), ImageTable(path, label, sha))
    for repeat in range(2):
        own = [split for split in splits if split.repeat == repeat]
        assert np.array_equal(np.sort(np.concatenate([split.test for split in own])), np.arange(124))
        for split in own:
            assert abs((label[split.test] == "c2").sum() - 7.5) <= 2.5


def test_groups_stay_together():
    path, label, sha = collection([60, 60, 60])
    group = np.array([f"g{row // 4}" for row in range(180)])
    for protocol in ("group-cv", "holdout", "block-cv"):
        splits, _ = make_splits(FitConfig(protocol=protocol, repeats=2), ImageTable(path, label, sha, group))
        for split in splits:
            parts = [set(group[rows]) for rows in (split.train, split.val, split.test)]
            assert not parts[0] & parts[1]
            assert not parts[0] & parts[2]
            assert not parts[1] & parts[2]


def test_leave_group_out():
    path, label, sha = collection([100, 100])
    group = np.array(["a1"] * 30 + ["a2"] * 70 + ["b1"] * 60 + ["b2"] * 40)
    splits, notes = make_splits(FitConfig(protocol="leave-group-out", repeats=1), ImageTable(path, label, sha, group))
    # Without a2 its class keeps 30, without b1 40: too few.
    assert sorted(split.name for split in splits) == ["a1", "b2"]
    assert "a2" in notes[-1]
    assert "b1" in notes[-1]
    for split in splits:
        assert set(group[split.test]) == {split.name}
        assert split.name not in set(group[split.train]) | set(group[split.val])
    with pytest.raises(SplitError, match="No group can be left out"):
        make_splits(FitConfig(protocol="leave-group-out"), ImageTable(path, label, sha, label))


def test_what_shows_the_same_does_not_train_for_a_series_left_out():
    path, label, sha = collection([120, 120])
    series = np.array(["a1"] * 30 + ["a2"] * 90 + ["b1"] * 60 + ["b2"] * 60)
    together = np.array([f"f{row}" for row in range(240)])
    together[[29, 30, 31]] = "across"  # a field that a1 and a2 both show
    together[[100, 101, 102, 103]] = "within"
    together[[10, 200]] = "conflict"  # the same picture under two classes
    splits, notes = make_splits(
        FitConfig(protocol="leave-group-out", repeats=1), ImageTable(path, label, sha, series, together)
    )
    assert [split.name for split in splits] == ["a1", "b1", "b2"]
    assert "show the same as one of another group" in notes[-1]
    for split in splits:
        assert set(series[split.test]) == {split.name}
        used = np.concatenate([split.train, split.val])
        assert not set(together[split.test]) & set(together[used])
        assert not set(together[split.train]) & set(together[split.val])
    assert len(splits[0].train) + len(splits[0].val) == 210 - 3
    for protocol in ("block-cv", "cv", "holdout", "group-cv"):
        for split in make_splits(
            FitConfig(protocol=protocol), ImageTable(path, label, sha, np.arange(240) // 2, together)
        )[0]:
            assert not set(together[split.test]) & set(together[np.concatenate([split.train, split.val])])


def test_the_column_follows_the_protocol(tmp_path):
    path, label, _ = collection([3, 3])
    file = tmp_path / "groups.csv"
    rows = [f"{name},{row},s{row // 2},b{row // 3}" for row, name in enumerate(path)]
    file.write_text("\n".join(["path,group,series,block", *rows]))
    for protocol, column in (("holdout", "group"), ("block-cv", "block"), ("leave-group-out", "series")):
        found = read_grouping(FitConfig(protocol=protocol, groups=str(file)), path, label)
        assert found.column == column
        assert found.together.tolist() == [str(row) for row in range(6)]
        assert found.series.tolist() == ["s0", "s0", "s1", "s1", "s2", "s2"]
    named = read_grouping(FitConfig(protocol="block-cv", groups=str(file), group_column="series"), path, label)
    assert (named.column, named.group.tolist()) == ("series", named.series.tolist())
    file.write_text("\n".join(["path,group", *(f"{name},p{row // 3}" for row, name in enumerate(path))]))
    patient = read_grouping(FitConfig(protocol="leave-group-out", groups=str(file)), path, label)
    assert (patient.column, patient.series.tolist()) == ("group", ["p0"] * 3 + ["p1"] * 3)
    assert read_grouping(FitConfig(), path, label) is None
    file.write_text("\n".join(["path,patient,series", *(f"{name},p{row // 3}," for row, name in enumerate(path))]))
    gaps = read_grouping(FitConfig(protocol="group-cv", groups=str(file), group_column="patient"), path, label)
    assert gaps.series.tolist() == gaps.group.tolist() == ["p0"] * 3 + ["p1"] * 3


def test_units_are_connected_components():
    assert merge_units(["a", "b", "c", "a", "d"], ["1", "1", "2", "3", "2"]).tolist() == [0, 0, 1, 0, 1]


def test_what_cannot_be_split():
    path, label, sha = collection([40, 2])
    with pytest.raises(SplitError, match=r"'c1' has 2"):
        make_splits(FitConfig(), ImageTable(path, label, sha))
    with pytest.raises(SplitError, match="needs groups"):
        make_splits(FitConfig(protocol="group-cv"), ImageTable(path, label, sha))


def test_groups_files(tmp_path):
    file = tmp_path / "groups.csv"
    file.write_text("path,group,series\na.jpg,1,x\nb.jpg,1,y\nc.jpg,2,\n")
    assert read_groups(file, "group", ["c.jpg", "a.jpg"]).tolist() == ["2", "1"]
    for column, paths, message in (
        ("slide", ["a.jpg"], "expected 'slide'"),
        ("group", ["a.jpg", "z.jpg"], "1 of 2 images"),
        ("series", ["c.jpg"], "no series"),
    ):
        with pytest.raises(DataError, match=message):
            read_groups(file, column, paths)
    with pytest.raises(DataError, match="No groups file"):
        read_groups(tmp_path / "no.csv", "group", ["a.jpg"])
    file.write_text("path,group\na.jpg,1\na.jpg,2\n")
    with pytest.raises(DataError, match="twice"):
        read_groups(file, "group", ["a.jpg"])


def test_several_columns_of_a_groups_file(tmp_path):
    file = tmp_path / "groups.csv"
    file.write_text("path,overlay,batch,odd+name\na.jpg,red,1,p\nb.jpg,none,1,q\nc.jpg,red,2,r\n")
    paths, label = ["c.jpg", "a.jpg", "b.jpg"], np.array(["Pro", "Early", "Pro"])
    assert read_groups(file, "overlay+batch", paths).tolist() == ["red/2", "red/1", "none/1"]
    assert read_groups(file, "class+overlay", paths, label).tolist() == ["Pro/red", "Early/red", "Pro/none"]
    assert read_groups(file, "class", paths, label).tolist() == label.tolist()
    assert read_groups(file, "odd+name", paths).tolist() == ["r", "p", "q"]
    with pytest.raises(DataError, match="expected 'class'"):
        read_groups(file, "class+overlay", paths)
    with pytest.raises(DataError, match="expected 'slide'"):
        read_groups(file, "class+slide", paths, label)
    file.write_text("path,class,overlay\na.jpg,own,red\nb.jpg,own,\nc.jpg,own,red\n")
    assert read_groups(file, "class+overlay", ["a.jpg"], ["Early"]).tolist() == ["own/red"]
    with pytest.raises(DataError, match=r"no class\+overlay for 1 of 2"):
        read_groups(file, "class+overlay", ["a.jpg", "b.jpg"], ["Early", "Pro"])


@st.composite
def collections(draw):
    """Images of two to four classes with copies, groups, and sets that show the same, in any row order."""
    count = draw(st.integers(30, 90))
    numbers = st.lists(st.integers(0, 14), min_size=count, max_size=count)
    label = np.array([f"c{value % draw(st.shared(st.integers(2, 4)))}" for value in draw(numbers)])
    sha = np.array([f"{value if value < 3 else 100 + row:064x}" for row, value in enumerate(draw(numbers))])
    group = np.array([f"g{value}" for value in draw(numbers)])
    together = np.array([f"t{value if value < 4 else 100 + row}" for row, value in enumerate(draw(numbers))])
    path = np.array(draw(st.permutations([f"{row}.png" for row in range(count)])))
    return ImageTable(path, label, sha, draw(st.sampled_from([None, group])), draw(st.sampled_from([None, together])))


@pytest.mark.slow
@settings(max_examples=60)
@given(collections(), st.sampled_from(["holdout", "cv", "group-cv", "leave-group-out"]), st.integers(0, 3))
def test_no_unit_crosses_a_split(images, protocol, seed):
    config = FitConfig(protocol=protocol, repeats=2, folds=3, seed=seed)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 3)
            found, _ = make_splits(config, images)
            order = np.random.default_rng(seed).permutation(len(images.path))
            columns = (images.path, images.label, images.sha256, images.group, images.together)
            turned = ImageTable(*(None if column is None else column[order] for column in columns))
            other, _ = make_splits(config, turned)
    except SplitError as error:
        assert "fault of ball" not in str(error)
        return
    for split, again in zip(found, other, strict=True):
        used = np.concatenate([split.train, split.val, split.test])
        assert len(np.unique(used)) == len(used)
        for part in ("train", "val", "test"):
            assert len(getattr(split, part))
            assert set(images.path[getattr(split, part)]) == set(turned.path[getattr(again, part)])
        learnt = np.concatenate([split.train, split.val])
        for key in (images.sha256, images.together, images.group):
            if key is not None:
                assert not set(key[split.test]) & set(key[learnt])
        if protocol != "leave-group-out":
            assert len(used) == len(images.path)
            for key in (images.sha256, images.together, images.group):
                if key is not None:
                    assert not set(key[split.train]) & set(key[split.val])
    if protocol in ("cv", "group-cv"):
        for repeat in range(2):
            tested = np.concatenate([split.test for split in found if split.repeat == repeat])
            assert np.array_equal(np.sort(tested), np.arange(len(images.path)))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_units_are_the_smallest_sets_that_no_key_crosses(pairs):
    first, second = ([pair[place] for pair in pairs] for place in range(2))
    units = merge_units(first, second).tolist()
    parent = list(range(len(pairs)))  # components by repeated relabelling, an independent way

    changed = True
    while changed:
        changed = False
        for a, one in enumerate(pairs):
            for b, other in enumerate(pairs):
                if (one[0] == other[0] or one[1] == other[1]) and parent[a] != parent[b]:
                    parent[a] = parent[b] = min(parent[a], parent[b])
                    changed = True
    seen = list(dict.fromkeys(parent))
    assert units == [seen.index(value) for value in parent]


def test_columns_of_a_cache_are_used_without_a_file():
    path, label, sha = collection([6, 6])
    columns = {
        "patient": np.array([f"P{row // 3}" for row in range(11)] + [""]),
        "site": np.array(["A", "B"] * 6),
        "note": np.array(["x"] * 12),
    }
    assert read_grouping(FitConfig(), path, label, {"note": columns["note"], "group": np.array([""] * 12)}) is None
    found = read_grouping(FitConfig(), path, label, columns)
    assert found.column == "patient"
    assert found.together.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    assert len(set(found.together.tolist())) == 5  # the image without a patient stands alone
    assert "1 of 12 images have no patient" in found.notes[-1]
    assert found.units("holdout", sha).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    left = read_grouping(FitConfig(protocol="leave-site-out"), path, label, columns)
    assert (left.column, left.group.tolist()) == ("site", ["A", "B"] * 6)
    centred = read_grouping(FitConfig(center="site"), path, label, {"site": columns["site"]})
    assert centred.center.tolist() == ["A", "B"] * 6
    assert centred.group.tolist() == path.tolist()
    with pytest.raises(SplitError, match="has no column group"):
        read_grouping(FitConfig(protocol="group-cv"), path, label, {"site": columns["site"]})
    with pytest.raises(DataError, match="expected 'slide' too"):
        read_grouping(FitConfig(group_column="slide"), path, label, columns)


def test_patients_and_groups_of_a_file_stay_whole(tmp_path):
    path, label, _ = collection([3, 3])
    file = tmp_path / "g.csv"
    file.write_text("\n".join(["Datei;Gruppe;Fall", *(f"{name};{row};P{row // 2}" for row, name in enumerate(path))]))
    found = read_grouping(FitConfig(groups=str(file)), path, label)
    assert found.column == "group"
    assert found.together.tolist() == [0, 0, 1, 1, 2, 2]
    by_heading = read_grouping(FitConfig(groups=str(file), group_column="Fall"), path, label)
    assert by_heading.group.tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]


def with_patients(patients=12, each=6, classes=3):
    """Patients of one class each, all images of a patient in a row."""
    label = np.repeat([f"c{number % classes}" for number in range(patients)], each)
    patient = np.repeat([f"P{number}" for number in range(patients)], each)
    path = np.array([f"{name}/{row}.jpg" for row, name in enumerate(label)])
    sha = np.array([f"{row:064x}" for row in range(len(label))])
    return path, label, sha, patient


def table_of(tmp_path, **columns):
    """A groups file."""
    file = tmp_path / "groups.csv"
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("protocol", ["holdout", "cv", "group-cv", "patient-cv", "leave-site-out"])
def test_every_protocol_keeps_patients_whole(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 2)
    path, label, sha, patient = with_patients(patients=18)
    site = np.array([f"S{int(name[1:]) // 3 % 3}" for name in patient])
    file = table_of(tmp_path, path=path, group=path, patient=patient, site=site)
    config = FitConfig(protocol=protocol, groups=file, folds=3, repeats=2)
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    assert grouping.column == {"patient-cv": "patient", "leave-site-out": "site"}.get(protocol, "group")
    images = ImageTable(path, label, sha, grouping.group, grouping.together, grouping.patient)
    splits, notes = make_splits(config, images)
    assert any("18 patients" in note for note in notes)
    for split in splits:
        parts = [set(patient[rows]) for rows in (split.train, split.val, split.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        if protocol == "leave-site-out":
            assert set(site[split.test]) == {split.name}
            assert split.name not in set(site[split.train]) | set(site[split.val])
    assert len(splits) == {"holdout": 2, "leave-site-out": 6}.get(protocol, 6)


def test_an_image_without_a_patient_is_of_none(tmp_path):
    path, label, sha, patient = with_patients()
    patient[::2] = ""
    config = FitConfig(groups=table_of(tmp_path, path=path, group=path, patient=patient))
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    units = grouping.units("holdout", sha)
    assert len(np.unique(units)) == 36 + 12


@pytest.mark.parametrize(
    ("train", "val", "test"), [("train", "val", "test"), ("Training", "dev", "TESTING"), ("tr", "valid", "holdout")]
)
def test_a_given_split_is_respected_to_the_row(tmp_path, train, val, test):
    path, label, sha, _ = with_patients()
    part = np.array([train, val, test, train, train, ""])[np.arange(len(path)) % 6]
    config = FitConfig(protocol="given", groups=table_of(tmp_path, path=path, split=part))
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    assert grouping.series is None
    assert len(np.unique(grouping.units("given", sha))) == len(path)  # the parts are no groups
    (split,), notes = make_splits(config, ImageTable(path, label, sha, grouping.group, grouping.together))
    for rows, name in ((split.train, train), (split.val, val), (split.test, test)):
        assert rows.tolist() == np.flatnonzero(part == name).tolist()
    assert notes == ["12 images have no part in the given split and are not used."]


def test_validation_that_the_table_lacks_comes_from_training_by_whole_patients(tmp_path):
    path, label, sha, patient = with_patients()
    part = np.where(np.isin(patient, ["P0", "P1", "P2"]), "test", "train")
    config = FitConfig(protocol="given", groups=table_of(tmp_path, path=path, split=part, patient=patient))
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    images = ImageTable(path, label, sha, grouping.group, grouping.together, grouping.patient)
    (split,), notes = make_splits(config, images)
    assert set(patient[split.test]) == {"P0", "P1", "P2"}
    assert not set(patient[split.train]) & set(patient[split.val])
    assert len(split.train) + len(split.val) == 54
    assert any("no validation images" in note for note in notes)


@pytest.mark.parametrize("form", ["{}", "fold_{}", "Fold {}", "{}.0"])
def test_given_folds_are_a_cross_validation(tmp_path, form):
    path, label, sha, _ = with_patients()
    fold = np.array([form.format(1 + row % 4) for row in range(len(path))])
    config = FitConfig(protocol="given", groups=table_of(tmp_path, path=path, split=fold))
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    splits, _ = make_splits(config, ImageTable(path, label, sha, grouping.group, grouping.together))
    assert [split.fold for split in splits] == [0, 1, 2, 3]
    for number, split in enumerate(splits):
        assert set(fold[split.test]) == {form.format(1 + number)}
        assert sorted([*split.train, *split.val, *split.test]) == list(range(len(path)))


def test_leaks_of_a_given_split_are_counted(tmp_path):
    path, label, sha, patient = with_patients()
    part = np.where(np.arange(len(path)) % 3 == 2, "test", "train")
    sha[2] = sha[0]  # a test image that is a copy of a training image
    config = FitConfig(protocol="given", groups=table_of(tmp_path, path=path, split=part, patient=patient))
    grouping = read_grouping(config, path, label)
    assert grouping is not None
    images = ImageTable(path, label, sha, grouping.group, grouping.together, grouping.patient)
    splits, notes = make_splits(config, images)
    assert given_leaks(splits, images) == {"copies": 1, "patients": 24}
    assert notes[0] == (
        "The given split leaks: of 24 test images 1 has a copy, 24 are of a patient in training. Its scores are too "
        "high."
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (["train", "train", "train"], r"No image tests in the given split \(train 72\)"),
        (["test", "val", "test"], "No image trains"),
        (
            ["train", "test", "spare"],
            "Got the parts 'spare' in the given split, expected train, val and test, or folds",
        ),
        (["1", "1", ""], "the single fold '1'"),
        (["", "", ""], "is empty"),
        (["train", "test", "3"], "Got the parts '3'"),
    ],
)
def test_a_column_that_is_no_split_is_refused(tmp_path, part, message):
    path, label, sha, _ = with_patients()
    column = np.array(part)[np.arange(len(path)) % 3]
    with pytest.raises(SplitError, match=message):
        make_splits(FitConfig(protocol="given"), ImageTable(path, label, sha, column))


@pytest.mark.parametrize("seed", range(6))
def test_the_only_patient_of_a_class_trains(tmp_path, seed):
    """Validation never takes a class whole: the same split is refused under no seed."""
    patient = np.repeat([f"P{number}" for number in range(12)], 5)
    label = np.where(np.isin(patient, ["P0", "P6"]), "rare", np.where(np.arange(60) % 10 < 5, "a", "b"))
    path = np.array([f"{row}.png" for row in range(60)])
    part = np.where(np.arange(60) < 30, "train", "test")
    table = ImageTable(path, label, path, group=part, together=patient, patient=patient)
    (split,) = make_splits(FitConfig(protocol="given", seed=seed), table)[0]
    assert {*patient[split.train]} >= {"P0"}
    assert not {*patient[split.train]} & {*patient[split.val]}
    folds = make_splits(FitConfig(protocol="patient-cv", folds=2, repeats=1, seed=seed), replace(table, group=patient))
    assert all({*label[split.train]} == {"rare", "a", "b"} for split in folds[0])


def test_series_of_one_patient_are_one_unit_where_series_are_left_out():
    series = np.array(["s1", "s1", "s2", "s3", "s4", "s4", "s5", "s6"])
    patient = np.array(["P", "P", "P", "Q", "Q", "R", "", "R"])
    own = Grouping("series", series, series, None, None, "", patient)
    units = own.units("leave-group-out", series)
    # s1 and s2 are of P alone; s4 is of Q and R, and stays a group beside s3 (Q alone) and s6 (R alone).
    assert len(np.unique(units)) == 5
    assert units[0] == units[1] == units[2]
    assert np.array_equal(replace(own, patient=None).units("leave-group-out", series), merge_units(series))


@pytest.mark.parametrize("known", [0, 2, 24])
def test_groups_that_a_given_split_cuts_count_where_no_patient_is_known(known):
    """A column patient that is empty for most images hides no group that lies on both sides."""
    rows = np.arange(24)
    path, label = np.array([f"{row:02}" for row in rows]), np.where(rows % 2, "a", "b")
    columns = {
        "split": np.where(rows % 4 < 2, "train", "test"),
        "group": [f"G{row // 4}" for row in rows],
        "patient": [f"P{row // 4}" if row < known else "" for row in rows],
    }
    config = FitConfig(protocol="given")
    grouping = read_grouping(config, path, label, columns)
    assert grouping is not None
    images = ImageTable(path, label, path, grouping.group, grouping.together, grouping.patient)
    splits, notes = make_splits(config, images)
    found = {"patients": known // 4 * 2, "groups": 12 if known < 24 else 0}
    assert given_leaks(splits, images) == {name: count for name, count in found.items() if count}
    assert notes[0].startswith("The given split leaks: of 12 test images 12 are of")
