"""Sheets of other kinds: a row for each patient, classes as headings, several files, JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from ball_features.config import CollectionConfig, FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.dataset.manifest import scan
from ball_features.dataset.patient_names import match_patients
from ball_features.dataset.sheet import read_sheet
from ball_features.errors import DataError

FILES = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]


def made(root, names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)
    return root


def written(tmp_path, **texts):
    """Files of a text each; their paths."""
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return [str(tmp_path / f"{name}.csv") for name in texts]


def scanned(tmp_path, names, text, **options):
    sheet = written(tmp_path, patients=text)
    return scan(made(tmp_path / "images", names), collection=CollectionConfig(sheet=sheet, **options))


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["P07/1.jpg", "P07/2.jpg", "P11/1.jpg", "P12/1.jpg"], "auto"),
        (["patient_07/1.jpg", "patient_07/2.jpg", "patient_11/1.jpg", "patient_12/1.jpg"], "auto"),
        (["x/07_1.jpg", "x/07_2.jpg", "x/11_1.jpg", "x/12_1.jpg"], "{patient}_*"),
        (["x/P07_1.jpg", "x/P07_2.jpg", "x/P11_1.jpg", "x/P12_1.jpg"], "auto"),
        (["train/P07-1.jpg", "train/P07-2.jpg", "train/P11-1.jpg", "test/P12-1.jpg"], "auto"),
        (["07/1.jpg", "07/2.jpg", "11/1.jpg", "12/1.jpg"], "patient"),
        (["07/1.jpg", "07/2.jpg", "11/1.jpg", "12/1.jpg"], "auto"),
    ],
)
@pytest.mark.parametrize("ids", [("7", "11", "12"), ("07", "11", "12"), ("P7", "P11", "P12"), ("case 07", "11", "12")])
def test_a_row_for_each_patient(tmp_path, names, layout, ids):
    rows = "".join(f"{name},{dx},{age}\n" for name, dx, age in zip(ids, "aba", (4, 5, 6), strict=True))
    manifest = scanned(tmp_path, names, f"patient,diagnosis,age\n{rows}", layout=layout)
    assert dict(zip(manifest.path, manifest.label, strict=True)) == dict(zip(names, "aaba", strict=True))
    assert sorted(manifest.columns["age"]) == ["4", "4", "5", "6"]
    assert len(set(manifest.columns["patient"])) == 3
    assert f"Read from: diagnosis in {tmp_path}/patients.csv, by patient" in manifest.classes[1]


def test_patients_that_do_not_match_are_counted_and_named(tmp_path):
    names = ["P1/1.jpg", "P1/2.jpg", "P2/1.jpg", "P3/1.jpg", "P3/2.jpg", "P9/1.jpg"]
    text = "patient,diagnosis\n1,a\n2,b\nP3,a\n4,b\n,b\n"
    manifest = scanned(tmp_path, names, text)
    assert manifest.label == ("a", "a", "b", "a", "a", "")
    assert manifest.columns["patient"] == ("P1", "P1", "P2", "P3", "P3", "P9")
    assert "2 patients of the images are written otherwise" in manifest.note
    assert "P1 is 1, P2 is 2" in manifest.note
    assert "1 patient of" in manifest.note
    assert "4 in line 5" in manifest.note
    assert "1 row of" in manifest.note
    assert "1 image of 1 patient has no row" in manifest.note
    assert "P9" in manifest.note


def test_a_folder_of_a_patient_without_a_row_is_no_class(tmp_path):
    names = ["TCGA-1/1.jpg", "TCGA-2/1.jpg", "TCGA-3/1.jpg"]
    manifest = scanned(tmp_path, names, "case_id,diagnosis\nTCGA-1,a\nTCGA-2,b\n")
    assert manifest.label == ("a", "b", "")
    assert manifest.columns["patient"] == ("TCGA-1", "TCGA-2", "TCGA-3")
    assert "The patients of the images are read from the folders TCGA-1, TCGA-2, TCGA-3" in manifest.note


def test_groups_of_the_patients_of_a_cache(tmp_path):
    (groups,) = written(tmp_path, sites="patient,hospital\n1,north\n2,south\n")
    path = np.array(["1.jpg", "2.jpg", "3.jpg"])
    config = FitConfig(protocol="leave-site-out", groups=groups)
    found = read_grouping(config, path, np.array(["a", "b", "a"]), {"patient": ["P1", "P2", "P1"]})
    assert found is not None
    assert found.group.tolist() == ["north", "south", "north"]
    with pytest.raises(DataError, match="the patients of the images are not known"):
        read_grouping(config, path, np.array(["a", "b", "a"]))


def test_classes_of_folders_and_ages_of_patients(tmp_path):
    manifest = scanned(tmp_path, ["a/P1/1.jpg", "b/P2/1.jpg"], "id,age\nP2,5\nP1,4\n")
    assert (manifest.label, manifest.columns["age"]) == (("a", "b"), ("4", "5"))
    assert "joined by patient" in manifest.note


def test_numbers_that_are_patients_by_chance(tmp_path):
    names = [f"{name}/{number}.jpg" for name in (0, 1, 2) for number in "ab"]
    rows = "".join(f"{number},x\n" for number in range(1, 31))
    with pytest.raises(DataError, match="the patients of the images are not known"):
        scanned(tmp_path, names, f"patient,diagnosis\n{rows}")
    tmp_path = tmp_path / "other"
    names = [f"a/P{number}/x.jpg" for number in (1, 2)] + ["b/P3/x.jpg"]
    made(tmp_path, names)
    with pytest.raises(DataError, match="None of the 30 rows"):
        scanned(tmp_path, names, f"id,diagnosis\n{rows}")
    assert scanned(tmp_path, names, f"patient,age\n{rows}").columns["age"] == ("x", "x", "x")


def test_numbers_of_rows_are_no_images(tmp_path):
    names = [f"P{patient}/{patient}{number}.jpg" for patient in (1, 2) for number in range(3)]
    manifest = scanned(tmp_path, names, "id,patient,diagnosis\n10,P1,a\n11,P2,b\n")
    assert manifest.label == ("a", "a", "a", "b", "b", "b")


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (["P1/1.jpg", "P2/1.jpg"], "P1,a\nP2,b\nP1,b\n", "lists the patient P1 twice, in lines 2 and 4, with label"),
        (["P1/1.jpg", "P2/1.jpg"], "1,a\n01,b\n", "which are one number"),
        (["P1/1.jpg", "P2/1.jpg"], "1,a\ncase1,b\n2,a\n", "patients '1' and 'case1' in patient, and the images are of"),
        (["P1/1.jpg", "P01/1.jpg", "P2/1.jpg"], "1,a\n2,b\n", "not clear which are the same"),
        (["P1/1.jpg", "P2/1.jpg"], "x,a\ny,b\n", "None of the 2 patients of .* is one of the 2 of the images"),
        (["1.jpg", "2.jpg"], "P1,a\nP2,b\n", "has a row for each patient .* Say where the patient stands"),
        (["1.jpg", "2.jpg"], "1,a\n2,b\n", "has a row for each patient .* Say where the patient stands"),
    ],
)
def test_patients_that_are_not_clear(tmp_path, names, text, message):
    with pytest.raises(DataError, match=message):
        scanned(tmp_path, names, f"patient,diagnosis\n{text}")


@pytest.mark.parametrize(
    ("images", "sheet", "same", "unclear"),
    [
        (["P1"], ["P1", "1"], {"P1": "P1"}, 0),
        (["P1", "P01"], ["P1"], {"P1": "P1"}, 0),
        (["a-1"], ["A-1"], {"a-1": "A-1"}, 0),
        (["7"], ["7.0"], {"7": "7.0"}, 0),
        (["P7"], ["X7"], {}, 0),
        (["1", "01"], ["P1"], {}, 1),
        (["Fall 3b"], ["P03B"], {"Fall 3b": "P03B"}, 0),
    ],
)
def test_spellings_of_patients(images, sheet, same, unclear):
    match = match_patients(images, sheet)
    assert (match.same, len(match.unclear)) == (same, unclear)


def columns_of(tmp_path, text, files=FILES, **options):
    sheet = read_sheet(written(tmp_path, s=text)[0], CollectionConfig(**options))
    return sheet.with_marked_classes().rows_of(files)


@pytest.mark.parametrize(("one", "none"), [("1", "0"), ("1.0", "0.0"), ("True", "false")])
def test_classes_as_headings(tmp_path, one, none):
    text = f"image,MEL,NV,BCC,age\n1,{one},{none},{none},30\n2,{none},{one},{none},1\n3,{none},{none},{one},0\n"
    rows = columns_of(tmp_path, text)
    assert rows.columns == {"label": ("MEL", "NV", "BCC", ""), "age": ("30", "1", "0", "")}
    assert rows.label_source == f"headings MEL, NV, BCC in {tmp_path}/s.csv"


def test_rows_of_several_classes_and_of_none(tmp_path):
    with pytest.raises(DataError, match=r"1 rows have more than one 1 \(first: A and B in line 3\)"):
        columns_of(tmp_path, "image,A,B\n1,1,0\n2,1,1\n")
    text = "image,A,B\n1,1,0\n2,0,1\n3,0,0\n"
    assert columns_of(tmp_path, text).columns["label"] == ("A", "B", "", "")
    sheet = read_sheet(written(tmp_path, s=text)[0]).with_marked_classes()
    assert "1 rows of" in sheet.remarks[-1]
    assert "have no 1 in A, B, and no class" in sheet.remarks[-1]


@pytest.mark.parametrize(
    ("text", "label", "split"),
    [
        ("image,label,A,B\n1,x,1,0\n2,y,0,1\n", ("x", "y"), None),
        ("image,train,test,A,B\n1,1,0,0,1\n2,0,1,1,0\n", ("B", "A"), ("train", "test")),
        ("image,is_test,A,B\n1,1,0,1\n2,0,1,0\n", ("B", "A"), ("test", "train")),
        ("image,A\n1,1\n2,0\n", None, None),
        ("image,A,B\n1,0.7,0.3\n2,0,1\n", None, None),
        ("image,dead,relapse\n1,0,0\n2,0,0\n3,0,1\n", None, None),
    ],
)
def test_columns_that_are_no_classes(tmp_path, text, label, split):
    columns = columns_of(tmp_path, text).columns
    assert columns.get("label", (None,))[:2] == (label or (None,))
    assert columns.get("split", (None,))[:2] == (split or (None,))


def test_headings_named_as_classes(tmp_path):
    text = "image,A,B,smoker\n1,1,0,1\n2,0,1,1\n"
    assert columns_of(tmp_path, text, label_column="A,B").columns == {
        "label": ("A", "B", "", ""),
        "smoker": ("1", "1", "", ""),
    }
    with pytest.raises(DataError, match="smoker is '9' in line 2, expected 0 or 1"):
        columns_of(tmp_path, text.replace("1,1,0,1", "1,1,0,9"), label_column="A,smoker")


def test_marks_of_something_else_beside_class_folders(tmp_path):
    text = "image,male,female\n1.jpg,1,0\n2.jpg,0,1\n"
    manifest = scanned(tmp_path, ["a/1.jpg", "b/2.jpg"], text)
    assert manifest.label == ("a", "b")
    assert "label_column='male,female'" in manifest.note
    named = scanned(tmp_path, ["a/1.jpg", "b/2.jpg"], text, label_column="male,female")
    assert named.label == ("male", "female")
    flat = scan(
        made(tmp_path / "flat", ["ISIC_1.jpg", "ISIC_2.jpg"]),
        sheet={"image": ["ISIC_1", "ISIC_2"], "MEL": [1.0, 0], "NV": [0, 1.0]},
    )
    assert flat.label == ("MEL", "NV")


def test_several_files_are_joined_and_their_names_are_the_split(tmp_path):
    sheets = written(tmp_path, train="image,label\n1,x\n2,y\n", val="image,class\n3,x\n", test="image\n4\n")
    sheet = read_sheet(sheets)
    rows = sheet.rows_of(FILES)
    assert rows.columns == {"label": ("x", "y", "x", ""), "split": ("train", "train", "val", "test")}
    assert "The split is read from the names of" in sheet.remarks[-1]
    assert not rows.remarks


def test_several_files_with_a_split_or_other_names(tmp_path):
    text = "image,label,fold\n1,x,0\n2,y,1\n"
    rows = read_sheet(written(tmp_path, train=text, test="image,label\n3,x\n")).rows_of(FILES)
    assert rows.columns["split"] == ("0", "1", "", "")
    assert rows.remarks == (f"1 image has no row in {tmp_path}/train.csv and {tmp_path}/test.csv: b/4.jpg.",)
    rows = read_sheet(written(tmp_path, one="image,label\n1,x\n", two="image,age\n1,5\n")).rows_of(FILES)
    assert {name: cells[0] for name, cells in rows.columns.items()} == {"label": "x", "age": "5"}


def test_several_files_that_contradict(tmp_path):
    sheets = written(tmp_path, a="image,label\n1,x\n", b="image,label\n1,y\n")
    with pytest.raises(DataError, match=r"differ on a/1.jpg: label is 'x' and 'y'"):
        read_sheet(sheets).rows_of(FILES)
    sheets = written(tmp_path, train="image,label\n1,x\n", test="image,label\n1,x\n")
    with pytest.raises(DataError, match=r"differ on a/1.jpg: split is 'train' and 'test'"):
        read_sheet(sheets).rows_of(FILES)
    with pytest.raises(DataError, match="expected 'stage' too, named by label_column"):
        read_sheet(sheets, CollectionConfig(label_column="stage"))


@pytest.mark.parametrize("role", ["patient", "site", "group", "label", "series"])
@pytest.mark.parametrize(("one", "other"), [("1.0", "1"), ("1", "01"), ("2,0", "2")])
def test_one_number_in_two_ways_of_two_files_is_refused(tmp_path, role, one, other):
    """A program that finds an empty cell writes 1.0 for 1: the patient would be two, on both sides of a split."""
    sheets = written(tmp_path, a=f'image,{role}\n1,"{one}"\n', b=f"image,{role}\n2,{other}\n")
    with pytest.raises(DataError, match=f"{role} is '{one}' in .*a.csv and '{other}' in .*b.csv, which are one number"):
        read_sheet(sheets).rows_of(FILES)


def test_a_file_of_images_and_one_of_patients(tmp_path):
    images = "image,case\n1,P1\n2,P2\n3,P2\n"
    sheets = written(tmp_path, images=images, clinic="case,stage,age\nP1,x,4\nP2,y,5\n")
    rows = read_sheet(sheets, CollectionConfig(label_column="stage")).rows_of(FILES)
    assert rows.columns == {
        "patient": ("P1", "P2", "P2", ""),
        "label": ("x", "y", "y", ""),
        "age": ("4", "5", "5", ""),
    }


RECORDS = [{"file_name": "1.jpg", "label": "x", "n": 1.0}, {"file_name": "2.jpg", "label": "y", "ok": True}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "\ufeff" + json.dumps({"images": RECORDS, "version": 3}),
        "\n".join(map(json.dumps, RECORDS)),
        "\n\n".join(map(json.dumps, RECORDS)) + "\n",
        json.dumps({"file_name": ["1.jpg", "2.jpg"], "label": ["x", "y"], "n": [1, None], "ok": [None, True]}),
        json.dumps(
            {
                name: {str(n): own.get(name) for n, own in enumerate(RECORDS)}
                for name in ("file_name", "label", "n", "ok")
            }
        ),
        json.dumps({str(number): own for number, own in enumerate(RECORDS)}),
        json.dumps(
            {
                "columns": ["file_name", "label", "n", "ok"],
                "data": [["1.jpg", "x", 1, None], ["2.jpg", "y", None, True]],
            }
        ),
        json.dumps([{**own, "label": [own["label"]], "boxes": [1, 2]} for own in RECORDS]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_json(tmp_path, text, encoding):
    (tmp_path / "m.json").write_bytes(text.encode(encoding))
    sheet = read_sheet(tmp_path / "m.json")
    rows = sheet.rows_of(FILES)
    assert {name: cells[:2] for name, cells in rows.columns.items()} == {
        "label": ("x", "y"), "n": ("1", ""), "ok": ("", "True"),
    }  # fmt: skip
    assert ("boxes (lists or records)" in " ".join(sheet.remarks)) == ("boxes" in text)


def test_json_of_names_and_classes(tmp_path):
    for text in ('{"1.jpg": "x", "2.jpg": "y"}', '{"1.jpg": {"label": "x"}, "2.jpg": {"label": "y"}}'):
        (tmp_path / "m.json").write_text(text)
        assert read_sheet(tmp_path / "m.json").rows_of(FILES).columns["label"][:2] == ("x", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 40_000 + "]" * 40_000, "nested too deeply"),
        ('{"a":' * 40_000 + "1" + "}" * 40_000, "nested too deeply"),
        ('{"path": 1}\n{"path": 2', "line 2: Expecting ',' delimiter"),
        ('{"path": 1}\n[2]\n', "line 2 holds no record"),
        ('[{"path": "1", "path": "2"}]', "'path' is there twice in one record"),
        ('[{"path": "1"}, 2]', "holds no records"),
        ("[]", "holds no records"),
        ("{}", "holds no records"),
        ('{"path": ["1", "2"], "label": ["x"]}', "different lengths: path 2, label 1"),
        ('{"images": [{"id": 1}], "annotations": [{"id": 1}]}', "several tables: images, annotations"),
        ("[" + ",".join(f'{{"c{n}": 1}}' for n in range(4000)) + "]", "spans 4000 rows and 4000 columns"),
        ('[{"path": ' + "1" * 5000 + "}]", "limit"),
        ('[{"path": "1"', "line 1"),
    ],
)
def test_json_that_is_no_table(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_sheet(tmp_path / "m.json")


def test_names_may_begin_at_the_sheet(tmp_path):
    root = made(tmp_path / "images", [f"{part}/{number}.jpg" for part in ("train", "test") for number in (1, 2)])
    for part in ("train", "test"):
        lines = [json.dumps({"file_name": f"{number}.jpg", "label": f"{part[:2]}{number}"}) for number in (1, 2)]
        (root / part / "metadata.jsonl").write_text("\n".join(lines))
    sheets = tuple(str(root / part / "metadata.jsonl") for part in ("train", "test"))
    manifest = scan(root, collection=CollectionConfig(sheet=sheets))
    assert dict(zip(manifest.path, manifest.label, strict=True)) == {
        "test/1.jpg": "te1", "test/2.jpg": "te2", "train/1.jpg": "tr1", "train/2.jpg": "tr2",
    }  # fmt: skip
    assert set(manifest.columns["split"]) == {"train", "test"}


def test_names_that_are_put_together_from_columns(tmp_path):
    names = [f"patches/p{p}/{p}_x_{x}.png" for p in ("004", "017") for x in (96, 192)]
    rows = "".join(
        f"{n},{p},{x},{n % 2}\n" for n, (p, x) in enumerate((p, x) for p in ("004", "017") for x in (96, 192))
    )
    text = f",patient,x_coord,tumor\n{rows}"
    with pytest.raises(DataError, match=r"lists the patient 004 twice, in lines 2 and 3, with column 1 '0' and '1'"):
        scanned(tmp_path, names, text)
    manifest = scanned(tmp_path, names, text, path_column="{patient}_x_{x_coord}.png", label_column="tumor")
    assert [name.rsplit("/", 1)[-1] for name in manifest.path] == [name.rsplit("/", 1)[-1] for name in names]
    assert manifest.label == ("0", "1", "0", "1")
    assert manifest.columns["patient"] == ("004", "004", "017", "017")
    with pytest.raises(DataError, match="expected 'y' of path_column too"):
        scanned(tmp_path, names, text, path_column="{patient}_{y}.png")


def test_patients_that_are_names_of_files(tmp_path):
    text = "Patient_ID,new_names,labels\nUID_5_1_all.bmp,1.jpg,1\nUID_5_2_hem.bmp,2.jpg,0\n"
    manifest = scanned(tmp_path, ["1.jpg", "2.jpg"], text)
    assert manifest.label == ("1", "0")
    assert "patient" not in manifest.columns
    assert "Patient_ID of" in manifest.note
    assert scanned(tmp_path, ["1.jpg", "2.jpg"], text, patient_column="Patient_ID").columns["patient"][0][:3] == "UID"
    assert scanned(tmp_path, ["1.jpg", "2.jpg"], "patient,dx\n1.jpg,a\n2.jpg,b\n").label == ("a", "b")


def test_a_count_of_rows_beside_names_is_no_name(tmp_path):
    text = "image,id,choice\n/data/upload/1/8f3ab2c0-2.jpg,1,x\n/data/upload/1/8f3ab2c1-1.jpg,2,y\n"
    rows = columns_of(tmp_path, text, ["1.jpg", "2.jpg"])
    assert rows.columns == {"label": ("y", "x"), "id": ("2", "1")}
    with pytest.raises(DataError, match=r"image is 'other-2.jpg' in line 2"):
        columns_of(tmp_path, "image,id,choice\nother-2.jpg,1,x\nother-1.jpg,2,y\n", ["1.jpg", "2.jpg"])


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("name,label\n1.jpg,x\n2.jpg,y\n", {"label": ("x", "y")}),
        ("fname,label\ntrain/1.jpg,x\ntrain/2.jpg,y\n", {"label": ("x", "y")}),
        ("Image Index,label\n1.jpg,x\n2.jpg,y\n", {"label": ("x", "y")}),
        (
            "ImageNumber,FileName_DNA,Metadata_Site,Metadata_Patient,Metadata_Class\n2,1.jpg,3,P,x\n1,2.jpg,3,Q,y\n",
            {"label": ("x", "y"), "patient": ("P", "Q"), "ImageNumber": ("2", "1"), "Metadata_Site": ("3", "3")},
        ),
        ("#made by a program\n#path\tlabel\n#STRING\tSTRING\nfile\tclass\n1\tx\n2\ty\n", {"label": ("x", "y")}),
        ("#path,label\n1,x\n2,y\n", {"label": ("x", "y")}),
    ],
)
def test_headings_of_programs(tmp_path, text, columns):
    assert columns_of(tmp_path, text, ["1.jpg", "2.jpg"]).columns == columns


@pytest.mark.parametrize("text", ["TRAIN,gs://b/1.jpg,x\nTEST,gs://b/2.jpg,y\n", "1.jpg 0\n2.jpg 1\n"])
def test_a_sheet_without_a_header_is_told(tmp_path, text):
    with pytest.raises(DataError, match="seems to have no header: its first row is"):
        columns_of(tmp_path, text)


def test_a_sheet_without_a_class_is_told(tmp_path):
    with pytest.raises(
        DataError, match="has no column that is known to hold the class; name one by label_column: said"
    ):
        scanned(tmp_path, ["one/1.jpg", "one/2.jpg"], "ImageId,said\n1,x\n2,y\n")


def test_images_without_a_row_have_the_class_of_their_folder_only_if_it_is_one(tmp_path):
    names = ["run1/1.jpg", "run1/2.jpg", "run2/3.jpg", "run2/4.jpg"]
    manifest = scanned(tmp_path, names, "image,label\n1,x\n2,y\n3,x\n")
    assert manifest.label == ("x", "y", "x", "")
    assert "The folders of the 1 images without a row (run2) are not taken for classes" in manifest.note
    assert scanned(tmp_path, names, "image,label\n1,run2\n2,run1\n3,run1\n").label == ("run2", "run1", "run1", "run2")
    assert scanned(tmp_path, names, "image,label\n1,unsure\n").label == ("unsure", "run1", "run2", "run2")


def test_folders_of_parts_are_no_classes(tmp_path):
    names = [f"set_part_{part}/{part}{number}.jpg" for part in (1, 2) for number in (1, 2)]
    manifest = scanned(tmp_path, names, "image,A,B\n11,1,0\n12,0,1\n21,1,0\n22,0,1\n")
    assert manifest.label == ("A", "B", "A", "B")
    assert manifest.columns["part"] == ("set_part_1", "set_part_1", "set_part_2", "set_part_2")
    with pytest.raises(DataError, match="are named as parts are"):
        scan(tmp_path / "images")
    assert scan(tmp_path / "images", collection=CollectionConfig(layout="class")).label[::2] == (
        "set_part_1",
        "set_part_2",
    )
    within = scan(made(tmp_path / "within", [f"vol{n}/{name}/{n}.jpg" for n in (1, 2) for name in "ab"]))
    assert (within.label, within.columns["part"]) == (("a", "b", "a", "b"), ("vol1", "vol1", "vol2", "vol2"))


def test_splits_with_letters_and_numbers(tmp_path):
    names = [f"{split}/{name}/1.jpg" for split in ("Train", "TestA", "Test_B") for name in "ab"]
    manifest = scan(made(tmp_path, names))
    assert dict(zip(manifest.path, manifest.columns["split"], strict=True)) == {
        name: "train" if name.startswith("Train") else "test" for name in names
    }


def test_numbers_that_lack_the_zeros_of_the_files(tmp_path):
    text = "image,label\n1,x\n2.png,y\n120,z\n"
    rows = columns_of(tmp_path, text, ["a/001.png", "a/002.png", "b/120.png"])
    assert rows.columns["label"] == ("x", "y", "z")
    assert f"2 rows of {tmp_path}/s.csv match once zeros are put before: 1 is a/001.png." in rows.remarks
    rows = columns_of(tmp_path, text, ["a/01.png", "a/002.png", "b/120.png"])  # 1 need not be 01
    assert rows.columns["label"] == ("", "", "z")
    assert columns_of(tmp_path, text, ["1.png", "01.png", "120.png"]).columns["label"] == ("x", "", "z")
    with pytest.raises(DataError, match=r"lists 001.png twice, in lines 2 and 3, with label 'x' and 'y'"):
        columns_of(tmp_path, "image,label\n1,x\n001,y\n", ["001.png", "002.png"])


def test_a_table_without_a_class_leaves_that_of_the_folder(tmp_path):
    names = [f"{split}/{name}/{split}{name}.jpg" for split in ("train", "test") for name in "ab"]
    sheets = written(tmp_path, train="image,label\ntraina,a\ntrainb,b\n", test="image\ntesta\ntestb\n")
    manifest = scan(made(tmp_path / "images", names), sheet=sheets)
    assert manifest.path[0] == "test/a/testa.jpg"
    assert (manifest.label, manifest.columns["split"]) == (("a", "b", "a", "b"), ("test", "test", "train", "train"))


def test_a_split_that_contradicts_the_folders_is_said(tmp_path):
    names = ["train/A/1.jpg", "train/B/2.jpg", "test/A/3.jpg", "test/B/4.jpg"]
    manifest = scanned(tmp_path, names, "path,split\n1.jpg,test\n2.jpg,\n3.jpg,test\n")
    assert dict(zip(manifest.path, manifest.columns["split"], strict=True))["train/A/1.jpg"] == "test"
    assert (
        "1 of 4 images have another split in the sheet than by their folder; that of the sheet is taken: "
        "train/A/1.jpg (train, in the sheet test)."
    ) in manifest.note
