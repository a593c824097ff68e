"""The public names: pinned, sorted, importable, cheap to import."""

import subprocess
import sys

import pytest

import ball_features


def test_exported_members():
    assert ball_features.__all__ == [
        "BallError",
        "Cache",
        "ExtractConfig",
        "Extraction",
        "FitConfig",
        "HeadConfig",
        "MLPHead",
        "Predictions",
        "Predictor",
        "Run",
        "Saving",
        "audit",
        "compare",
        "draw_smears",
        "evaluate",
        "extract",
        "fit",
        "merge",
        "predict",
        "read_bundle",
        "read_cache",
        "read_run",
        "write_groups",
    ]
    assert ball_features.__all__ == sorted(ball_features.__all__)
    for name in ball_features.__all__:
        assert getattr(ball_features, name) is not None
    assert dir(ball_features) == sorted([*ball_features.__all__, "__version__"])


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(ball_features, "extractor")


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_heavy_libraries_are_imported_where_they_are_used():
    heavy = {"torch", "torchvision", "sklearn", "xgboost", "matplotlib", "h5py"}
    assert not heavy & loaded_by("import ball_features, ball_features.cli")
    assert not {"torch", "sklearn", "xgboost"} & loaded_by("import ball_features; ball_features.read_cache")
    assert "torchvision" not in loaded_by("import ball_features; ball_features.fit, ball_features.MLPHead")
    assert not {"torch", "sklearn"} & loaded_by(
        "import ball_features; ball_features.predict, ball_features.read_bundle"
    )
