import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from ball_features import ExtractConfig, FitConfig, HeadConfig
from ball_features.cli.presets import PRESETS
from ball_features.config import BundleUse, EvaluateConfig
from ball_features.errors import ConfigError


def test_unknown_keys_are_refused_with_a_near_one():
    with pytest.raises(ConfigError, match="Did you mean 'backbone'"):
        ExtractConfig.from_mapping({"backbon": "densenet121"})
    with pytest.raises(ConfigError, match="HeadConfig has no key"):
        FitConfig.from_mapping({"head": {"lr": 1}})


def test_round_trip():
    config = FitConfig(models=("mlp",), head=HeadConfig(hidden=(32,)))
    assert FitConfig.from_mapping(config.to_dict()) == config
    with pytest.raises(FrozenInstanceError):
        config.seed = 3


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (BundleUse, {"precision": "foo"}),
        (ExtractConfig, {"dtype": np.float16}),
        (EvaluateConfig, {"precision": "fp8"}),
        (ExtractConfig, {"views": 0}),
        (ExtractConfig, {"precision": "int8"}),
        (ExtractConfig, {"seed": -1}),
        (ExtractConfig, {"batch_size": 10**6}),
        (FitConfig, {"protocol": "x"}),
        (FitConfig, {"test_size": 0.9}),
        (FitConfig, {"folds": 1}),
        (HeadConfig, {"dropout": 1}),
    ],
)
def test_ranges(kind, wrong):
    with pytest.raises(ConfigError, match="expected"):
        kind(**wrong)


@pytest.mark.parametrize(
    ("kind", "wrong", "expected"),
    [
        (FitConfig, {"models": "mlp"}, "names in a tuple or list"),
        (FitConfig, {"models": (1,)}, "a text"),
        (FitConfig, {"folds": 2.5}, "a whole number"),
        (FitConfig, {"repeats": True}, "a whole number"),
        (FitConfig, {"test_size": "0.2"}, "a number"),
        (FitConfig, {"tta": 1}, "True or False"),
        (FitConfig, {"train_views": None}, "a text"),
        (FitConfig, {"head": 64}, "a HeadConfig, or a mapping of its keys"),
        (FitConfig, {"head": {"epochs": "many"}}, "a whole number"),
        (ExtractConfig, {"views": "a"}, "a whole number"),
        (ExtractConfig, {"channels": "original"}, "names in a tuple or list"),
        (HeadConfig, {"hidden": 64}, "numbers in a tuple or list"),
        (HeadConfig, {"hidden": (64, 2.5)}, "a whole number"),
        (HeadConfig, {"epochs": 2.5}, "a whole number"),
        (HeadConfig, {"learning_rate": "1e-4"}, "a number"),
    ],
)
def test_types(kind, wrong, expected):
    with pytest.raises(ConfigError, match=f"^Got .*expected {expected}"):
        kind(**wrong)


def test_what_json_numpy_and_paths_have_for_a_type_is_taken():
    config = FitConfig(
        models=["mlp"], folds=np.int64(3), test_size=np.float32(0.25), groups=Path("a") / "b.csv", head={"hidden": [8]}
    )
    assert config.models == ("mlp",)
    assert (type(config.folds), type(config.test_size)) == (int, float)
    assert config.groups == str(Path("a") / "b.csv")
    assert config.head == HeadConfig(hidden=np.array([8]), clip_norm=0.01)
    assert config.fingerprint() == FitConfig.from_mapping(json.loads(json.dumps(config.to_dict()))).fingerprint()
    assert HeadConfig(learning_rate=1).learning_rate == 1
    assert FitConfig(head=HeadConfig(consistency=1)).fingerprint() == FitConfig(head={"consistency": 1.0}).fingerprint()
    assert type(HeadConfig(clip_norm=1).clip_norm) is float
    assert type(FitConfig(seed=np.uint8(1)).seed) is int


def test_the_fingerprint_covers_what_changes_a_number_and_nothing_else():
    assert FitConfig(jobs=1).fingerprint() == FitConfig().fingerprint() != FitConfig(seed=1).fingerprint()
    here, there = FitConfig(groups="a.csv"), FitConfig(groups="b/a.csv")  # what the file says counts, not where it lies
    assert here.fingerprint(groups_sha256="0") == there.fingerprint(groups_sha256="0")
    assert here.fingerprint(groups_sha256="0") != here.fingerprint(groups_sha256="1")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_tells_the_number_of_splits(preset):
    assert "of 3 splits" in preset.told(3) or "over 3 splits" in preset.told(3)
    assert "1 split " in preset.told(1).replace(",", " ")
    assert "{" not in preset.told(1)


def test_settings_of_a_call_are_a_record_or_a_mapping():
    assert FitConfig.of(None) == FitConfig.of({}) == FitConfig()
    assert FitConfig.of({"models": ["logistic"]}) == FitConfig.of(FitConfig(models=("logistic",)))
    with pytest.raises(ConfigError, match="FitConfig has no key 'model'"):
        FitConfig.of({"model": "logistic"})
    for given in ("logistic", HeadConfig(), 3):
        with pytest.raises(ConfigError, match=rf"settings of type {type(given).__name__}, expected FitConfig"):
            FitConfig.of(given)
