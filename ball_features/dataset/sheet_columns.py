"""Columns of a sheet that `ball` knows, by their usual names in several languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ball_features.config import CollectionConfig
from ball_features.errors import DataError
from ball_features.files import IMAGE_SUFFIXES

__all__ = [
    "ROLES",
    "Roles",
    "filled_in",
    "find_roles",
    "flag_columns",
    "flag_value",
    "is_image_file",
    "names_images",
    "plain_name",
    "split_value",
]

_NAMES: dict[str, str] = {
    "path": "path filepath file filename filenames image imagepath imagefile imagename imagefilename images img "
    "imgpath imgname imageid imgid tile tilename tilepath patch patchname patchpath "
    "sopinstanceuid newname newnames picture photo pfad datei dateiname bild bildname "
    "bilddatei chemin fichier nomfichier nomdufichier ruta archivo imagen fichero nombrearchivo "
    "nombredearchivo caminho arquivo imagem ficheiro percorso immagine nomefile bestand bestandsnaam "
    "afbeelding sciezka plik obraz nazwapliku dosya dosyaadi goruntu resim путь файл имяфайла изображение "
    "fil filnamn filnavn billede bilde kuva tiedosto soubor obrazek kep fajl зображення αρχειο εικονα "
    "imageindex fname 파일 파일명 이미지 路径 文件 文件名 图像 图片 图片名 パス ファイル ファイル名 画像 画像名 "
    "name id uid",
    "label": "label labels choice class classes classname target category diagnosis diagnoses dx subtype celltype "
    "diagnos diagnoosi luokka diagnozis trida osztaly діагноз клас διαγνωση 진단 클래스 분류 "
    "groundtruth klasse diagnose befund kategorie classe diagnostic etiquette categorie clase diagnostico "
    "etiqueta categoria rotulo diagnosi etichetta klasa diagnoza rozpoznanie etykieta kategoria sinif "
    "tani etiket kategori класс диагноз метка 类别 标签 诊断 ラベル クラス 診断 分類",
    "patient": "patient patients patientid patientnr patientno patientnumber patientname pid ptid case caseid caseno "
    "casenumber subject subjectid subjectno participant participantid person personid individual "
    "patientin patientennummer patientenid fall fallnummer fallid proband patiente cas sujet paciente "
    "caso sujeto sujeito paziente soggetto patientnummer casus proefpersoon pacjent przypadek hasta "
    "patientid potilas pacient beteg пацієнт ασθενης 환자 환자번호 "
    "hastaid vaka пациент больной 患者 病人 患者编号 病例 患者id 症例",
    "site": "site siteid sites hospital hospitalid center centre centerid scanner scannerid institution institute "
    "lab laboratory clinic microscope klinik krankenhaus zentrum standort labor mikroskop hopital "
    "clinique laboratoire etablissement centro clinica laboratorio sitio ospedale sito ziekenhuis centrum "
    "sjukhus sykehus sygehus sairaala nemocnice korhaz лікарня νοσοκομειο 병원 기관 "
    "locatie szpital osrodek klinika hastane merkez больница центр клиника 医院 中心 机构 病院 施設",
    "split": "split splits fold folds set subset datasplit traintest trainvaltest traintestsplit "
    "partition teilmenge aufteilung ensemble particion conjunto "
    "division particao divisao suddivisione insieme partizione verdeling deelverzameling podzial zbior "
    "выборка разбиение 划分 数据集 分割",
    "group": "group groups groupid lesionid lesionsid specimenid gruppe groupe grupo gruppo groep grupa grup "
    "группа 组 分组 グループ",
}
_SLIDES = ("slideid", "slidename", "smearid", "wsiid")  # not slide, whose numbers may begin anew for each patient
ROLES = tuple(_NAMES)
_KNOWN = {role: tuple(names.split()) for role, names in _NAMES.items()}
_NUMBERED = ("path", "patient", "site", "group")  # columns whose names may end in id, nr and the like
_ENDING = re.compile(r"(id|ids|nr|no|num|number|nummer|code|key|name|identifier)$")
_BEGINNING = re.compile(r"^(no|nr|num|numero|number|nummer|id|code|codigo|codice|cod)")
_FILE_OF = re.compile(r"(?:image_)?file_?name_\w", re.IGNORECASE)  # CellProfiler: the file of each channel
_METADATA = re.compile(r"^(?:image_)?metadata_", re.IGNORECASE)
_BRACKETS = re.compile(r"\s*[(\[{][^)\]}]*[)\]}]\s*")
_LONGEST = 1000  # characters of a heading
_ANY_IDS = ("name", "id", "uid")  # of images, or of patients
_NEEDED = ("label", "patient")  # an ambiguous column of these is refused; others then stay under their own names

_SPLITS = {
    "train": "train training trn tr trainset trainingset traindata trainingdata trainingsdaten trainingsset "
    "entrenamiento treino entrainement apprentissage addestramento egitim treningowy обучение 训练 학습 훈련",
    "val": "val valid validation validations validate validating dev development valset valdata "
    "validationset validationdata validierung validierungsdaten validacion validacao validazione walidacja 验证 검증",
    "test": "test tests testing tst testset testdata testdaten testmenge holdout heldout evaluation eval prueba "
    "teste essai prova testowy тест 测试 테스트",
}
_NUMBERED_SPLIT = re.compile(r"(train|test|validation|val)(?:ing|set)?[ _-]*(?:[a-c]|[0-9])")
_SPLIT_WORDS = {word: name for name, words in _SPLITS.items() for word in words.split()}
_YES = {"true", "yes", "y", "1", "10", "t", "ja", "j", "si", "oui", "sim", "x", "wahr", "vrai", "vero", "verdadero"}
_NO = {"false", "no", "n", "0", "00", "f", "nein", "non", "nao", "", "falsch", "faux", "falso"}
_WHOLE = re.compile(r"[0-9]+(\.0*)?")
_FOLD_NAME = r"(?:(?:cv|k)?[ _-]*(?:folds?|falte|split|part)|cv|k)[ _.:#-]*"
_FOLD = re.compile(rf"(?:{_FOLD_NAME})?0*(\d{{1,3}})(?:\s*(?:of|von|de|di|sur|out of|/)\s*\d{{1,3}})?")


@dataclass(frozen=True)
class Roles:
    """Where the known columns stand.

    Attributes:
        place: role -> number of the column.
        paths: numbers of the columns that may name the image, in order of preference.
        remarks: roles that several columns may have.
        marked: numbers of the columns of 0 and 1 that were named as the classes.
    """

    place: dict[str, int]
    paths: tuple[int, ...]
    remarks: tuple[str, ...]
    marked: tuple[int, ...] = ()


def plain_name(text: str) -> str:
    """A name without letter case, accents, blanks and marks, for comparison."""
    folded = text.casefold()
    for own, other in (("n\u00b0", "no"), ("\u0131", "i"), ("\u0142", "l")):
        folded = folded.replace(own, other)
    folded = unicodedata.normalize("NFKD", folded)
    return "".join(character for character in folded if character.isalnum())


_PLAIN = {role: tuple(dict.fromkeys(map(plain_name, names))) for role, names in _KNOWN.items()}


def find_roles(
    header: Sequence[str], columns: CollectionConfig, source: str, *, by_patient: bool = False, missing: bool = False
) -> Roles:
    """Find the known columns of a header.

    Args:
        header: headings.
        columns: names of the columns, where they are not the usual ones.
        source: name of the table for messages.
        by_patient: accept a column of patients in place of one of images.
        missing: accept that a named column is not there: another table may have it.

    Raises:
        DataError: A named column is not there, none names the images, or several may be the label or the patient.
    """
    plain = [plain_name(name) for name in header]
    place: dict[str, int] = {}
    remarks = []
    paths: tuple[int, ...] = ()
    marked = _listed_columns(header, columns.label_column)
    for role in ROLES:
        asked = getattr(columns, f"{role}_column")
        if asked == "none" or (role == "label" and marked):
            continue
        if role == "path" and "{" in asked:  # put together by `filled_in`
            continue
        if asked and missing and _find(header, asked) is None:
            continue
        if asked:
            place[role] = _named(header, asked, role, source)
            paths = (place[role],) if role == "path" else paths
            continue
        found = [number for name in _PLAIN[role] for number, own in enumerate(plain) if own == name]
        for bare in _further(header, plain, role) if not found else ():
            found = found or [number for name in _PLAIN[role] for number, own in enumerate(bare) if own == name]
        if role == "path":
            paths = tuple(found)
            if not found and not by_patient:
                raise _nameless(header, source)
            place |= {role: found[0]} if found else {}
        elif len(found) == 1 or (found and plain[found[0]] == role):
            place[role] = found[0]
        elif found:
            names = " and ".join(repr(header[number]) for number in found)
            if role in _NEEDED:
                raise DataError(f"{source} has {names}, each of which may be the {role}. Name one by {role}_column.")
            remarks.append(f"{source} has {names}, each of which may be the {role}; none is taken for it.")
    if not paths and "patient" not in place and "{" not in columns.path_column:
        raise _nameless(header, source)
    return Roles(place, paths, tuple(remarks), marked)


def _nameless(header: Sequence[str], source: str) -> DataError:
    if any(is_image_file(part) for name in header for part in name.split()):
        return DataError(
            f"{source} seems to have no header: its first row is {_listed(header)}. Write names of the columns "
            "above it, such as path,label, with the separator that the rows have."
        )
    return DataError(
        f"{source} has the columns {_listed(header)}, none of which is known to name the images, expected path. Name "
        "it by path_column; or that of the patients by patient_column, where a row is for a patient."
    )


def is_image_file(text: str) -> bool:
    """Whether a text ends as names of images do."""
    return "." + text.casefold().rpartition(".")[2] in IMAGE_SUFFIXES


def names_images(heading: str) -> bool:
    """Whether a heading is a usual name of the column of the images, and not of any ids."""
    plain = plain_name(heading)
    return plain in _PLAIN["path"] and plain not in _ANY_IDS


def _further(header: Sequence[str], plain: Sequence[str], role: str) -> Iterator[list[str]]:
    """Headings without what may stand around the name of a column: "(final)", "ID", "No."."""
    header = [name[:_LONGEST] for name in header]  # no usual name is as long, and brackets cost the square of it
    without = [plain_name(_BRACKETS.sub(" ", name)) for name in header]
    yield without
    if role == "path":
        yield ["path" if _FILE_OF.match(name) else "" for name in header]
    elif role != "site":  # which is a field of a well there
        yield [plain_name(_METADATA.sub("", name)) for name in header]
    if role == "group":
        yield ["group" if own in _SLIDES else "" for own in plain]
    if role in _NUMBERED:
        yield [_ENDING.sub("", own) for own in plain]
        yield [_BEGINNING.sub("", own) for own in without]
        yield [_ENDING.sub("", own) for own in without]


def _named(header: Sequence[str], asked: str, role: str, source: str) -> int:
    found = _find(header, asked)
    if found is None:
        raise DataError(f"{source} has the columns {_listed(header)}, expected {asked!r} too, named by {role}_column.")
    return found


def _find(header: Sequence[str], asked: str) -> int | None:
    for same in (str, str.casefold, plain_name):
        found = [number for number, name in enumerate(header) if same(name) == same(asked)]
        if found:
            return found[0]
    return None


def filled_in(pattern: str, header: Sequence[str], texts: Sequence[Sequence[str]], source: str) -> tuple[str, ...]:
    """Names that are put together from columns: the pattern with the cells of each row in the place of {heading}.

    Raises:
        DataError: There is no such column.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    for number in range(1, len(pieces), 2):
        if _find(header, pieces[number]) is None:
            raise DataError(
                f"{source} has the columns {_listed(header)}, expected {pieces[number]!r} of path_column too."
            )
    places = [_find(header, name) for name in pieces[1::2]]
    columns = [texts[place] for place in places if place is not None]
    plain = pieces[::2]
    return tuple(
        plain[0] + "".join(cell + rest for cell, rest in zip(row, plain[1:], strict=True))
        for row in zip(*columns, strict=True)
    )


def _listed_columns(header: Sequence[str], asked: str) -> tuple[int, ...]:
    """Several columns named with commas between; nothing where one column has that name, or one is not there."""
    if "," not in asked or _find(header, asked) is not None:
        return ()
    found = [_find(header, name.strip()) for name in asked.split(",") if name.strip()]
    known = tuple(number for number in found if number is not None)
    return known if len(known) == len(found) else ()


def _listed(header: Sequence[str]) -> str:
    return ", ".join(header) or "(none)"


def flag_columns(header: Sequence[str]) -> dict[str, int]:
    """Columns that say yes or no to one part of a split: part -> number of the column.

    They are called is_test and the like, or train, val and test where there are several.
    """
    found: dict[str, int] = {}
    named = 0
    for number, name in enumerate(header):
        bare, marked = re.subn(r"^(?:is|in|ist|es|est)[ _-]+", "", name.strip().casefold())
        part = _SPLIT_WORDS.get(plain_name(bare))
        if part and part not in found:
            found[part] = number
            named += marked
    return found if named or len(found) > 1 else {}


def flag_value(text: str) -> bool | None:
    """Yes or no; None of another text."""
    plain = plain_name(text)
    return True if plain in _YES else False if plain in _NO else None


def split_value(text: str) -> str:
    """The name of a given split: train, val, test, the number of a fold, or the text itself."""
    if _WHOLE.fullmatch(text):
        return text.partition(".")[0].lstrip("0") or "0"
    fold = _FOLD.fullmatch(text.strip().casefold())
    numbered = _NUMBERED_SPLIT.fullmatch(text.strip().casefold())
    if numbered and plain_name(text) not in _SPLIT_WORDS:  # TestA, test_2
        return _SPLIT_WORDS[numbered[1]]
    return _SPLIT_WORDS.get(plain_name(text)) or (fold[1] if fold else text)
