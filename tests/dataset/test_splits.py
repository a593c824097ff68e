import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping, read_groups
from ball_features.dataset.splits import ImageTable, make_splits
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


def test_the_same_seed_gives_the_same_images_in_any_row_order():
    path, label, sha = collection([60, 40], copies=5)
    order = np.random.default_rng(0).permutation(100)
    a, _ = make_splits(FitConfig(repeats=1), ImageTable(path, label, sha))
    b, _ = make_splits(FitConfig(repeats=1), ImageTable(path[order], label[order], sha[order]))
    for part in ("train", "val", "test"):
        assert set(path[getattr(a[0], part)]) == set(path[order][getattr(b[0], part)])
    c, _ = make_splits(FitConfig(repeats=1, seed=1), ImageTable(path, label, sha))
    assert set(path[a[0].test]) != set(path[c[0].test])


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
    assert "show the same as one of a group left out" in notes[-1]
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


@settings(max_examples=60, deadline=None)
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
    assert found.together.tolist()[:11] == columns["patient"].tolist()[:11]
    assert len(set(found.together)) == 5  # the image without a patient stands alone
    assert "1 of 12 images have no patient" in found.notes[-1]
    assert found.units("holdout", sha).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    left = read_grouping(FitConfig(protocol="leave-group-out"), path, label, columns)
    assert (left.column, left.group.tolist()) == ("site", ["A", "B"] * 6)
    centred = read_grouping(FitConfig(center="site"), path, label, {"site": columns["site"]})
    assert centred.center.tolist() == ["A", "B"] * 6
    assert centred.group.tolist() == path.tolist()
    with pytest.raises(SplitError, match="has no column group or patient"):
        read_grouping(FitConfig(protocol="group-cv"), path, label, {"site": columns["site"]})
    with pytest.raises(DataError, match="expected 'slide' too"):
        read_grouping(FitConfig(group_column="slide"), path, label, columns)


def test_patients_and_groups_of_a_file_stay_whole(tmp_path):
    path, label, _ = collection([3, 3])
    file = tmp_path / "g.csv"
    file.write_text("\n".join(["Datei;Gruppe;Fall", *(f"{name};{row};P{row // 2}" for row, name in enumerate(path))]))
    found = read_grouping(FitConfig(groups=str(file)), path, label)
    assert found.column == "group"
    assert found.together.tolist() == ["0", "0", "1", "1", "2", "2"]
    by_heading = read_grouping(FitConfig(groups=str(file), group_column="Fall"), path, label)
    assert by_heading.group.tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]
