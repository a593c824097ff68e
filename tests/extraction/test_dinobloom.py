"""DinoBloom: both namings of its weights, its embedding, the hub, and images that it was trained on."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import ConfigError, WeightsError
from ball_features.extraction.backbones import BACKBONES, get_backbone
from ball_features.extraction.training_sets import recognise_training_sets
from ball_features.extraction.transformer_weights import to_timm
from ball_features.extraction.weights import load_backbone, weights_digest

timm = pytest.importorskip("timm")

NAMES = ("dinobloom-s", "dinobloom-b", "dinobloom-l")


@pytest.fixture(scope="module")
def small():
    return load_backbone(get_backbone("dinobloom-s"), "random", seed=4)


def as_published(state, grid=16):
    """The authors' checkpoint: the teacher of DINOv2 with its heads."""
    own = {f"backbone.{name}": value for name, value in state.items()}
    own["backbone.mask_token"] = torch.zeros(1, 384)
    if grid != 16:
        own["backbone.pos_embed"] = torch.randn(1, 1 + grid**2, 384)
    return {"teacher": own | {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last.bias": torch.ones(2)}}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_records_agree_with_the_architecture(name):
    record = BACKBONES[name]
    with torch.device("meta"):
        module = timm.create_model(record.builder, pretrained=False, num_classes=0, **record.options)
    assert module.num_features == record.dim
    assert tuple(module.pos_embed.shape) == (1, 1 + (224 // 14) ** 2, record.dim)
    assert module.patch_embed.patch_size == (record.patch_px,) * 2
    assert record.normalization == "imagenet"


@pytest.mark.slow
def test_the_embedding_is_the_normalised_class_token(small):
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(small(images), small.forward_features(images)[:, 0], atol=1e-6)


def published_shapes(dim, depth, grid=16):
    """Names and shapes of the teacher's network as the authors of DINOv2 write them, input of 224 pixels."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid**2, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, 14, 14),
        "patch_embed.proj.bias": (dim,),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (dim,),
            "norm1.bias": (dim,),
            "attn.qkv.weight": (3 * dim, dim),
            "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
            "ls1.gamma": (dim,),
            "norm2.weight": (dim,),
            "norm2.bias": (dim,),
            "mlp.fc1.weight": (4 * dim, dim),
            "mlp.fc1.bias": (4 * dim,),
            "mlp.fc2.weight": (dim, 4 * dim),
            "mlp.fc2.bias": (dim,),
            "ls2.gamma": (dim,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dim", "depth"), list(zip(NAMES, (384, 768, 1024), (12, 12, 24), strict=True)))
def test_the_authors_names_become_those_of_the_network(name, dim, depth):
    record = BACKBONES[name]
    with torch.device("meta"):
        module = timm.create_model(record.builder, pretrained=False, num_classes=0, **record.options)
        state = {f"backbone.{key}": torch.zeros(shape) for key, shape in published_shapes(dim, depth).items()}
        state |= {"dino_head.last_layer.weight_g": torch.zeros(9, 1), "ibot_head.mlp.0.bias": torch.zeros(9)}
    named = {key: tuple(value.shape) for key, value in to_timm(state, module).items()}
    assert named == {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.slow
def test_both_namings_of_the_weights_give_the_same_embeddings(tmp_path):
    draw = torch.Generator().manual_seed(5)
    numbers = {key: 0.05 * torch.randn(shape, generator=draw) for key, shape in published_shapes(384, 12).items()}
    heads = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight_v": torch.ones(2, 2)}
    authors, ported = tmp_path / "DinoBloom-S.pth", tmp_path / "model.safetensors"
    torch.save({"teacher": {f"backbone.{key}": value for key, value in numbers.items()} | heads}, authors)
    save_file({key: value for key, value in numbers.items() if key != "mask_token"}, ported)
    images = torch.randn(2, 3, 224, 224, generator=draw)
    one, two = (load_backbone(get_backbone("DinoBloom-S"), str(path)) for path in (authors, ported))
    assert one.state_dict().keys() == numbers.keys() - {"mask_token"}
    assert all(torch.equal(value, numbers[key]) for key, value in one.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(one(images), two(images))


@pytest.mark.slow
def test_position_embeddings_of_another_size_are_interpolated(tmp_path, small):
    path = tmp_path / "w.pth"
    torch.save(as_published(small.state_dict(), grid=37), path)
    loaded = load_backbone(get_backbone("dinobloom-s"), str(path))
    assert tuple(loaded.pos_embed.shape) == (1, 257, 384)


@pytest.mark.slow
def test_weights_of_another_size_are_refused_by_name(tmp_path, small):
    path = tmp_path / "w.pth"
    torch.save(as_published(small.state_dict()), path)
    with pytest.raises(WeightsError, match="does not fit dinobloom-b"):
        load_backbone(get_backbone("dinobloom-b"), str(path))


@pytest.mark.slow
def test_the_hub_gives_the_weights(tmp_path, small, monkeypatch):
    import huggingface_hub

    file = tmp_path / "hub" / "model.safetensors"
    file.parent.mkdir()
    save_file({name: value.clone() for name, value in small.state_dict().items()}, file)
    asked = []

    def download(repo, name):
        asked.append((repo, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = load_backbone(get_backbone("dinobloom-s"), "imagenet")
    assert torch.equal(loaded.pos_embed, small.pos_embed)
    assert len(weights_digest(get_backbone("dinobloom-s"), "imagenet")) == 64
    assert set(asked) == {("1aurent/vit_small_patch14_224.dinobloom", "model.safetensors")}


@pytest.mark.slow
def test_without_a_connection_the_message_names_the_repository(monkeypatch):
    import huggingface_hub

    def download(repo, name):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match=r"1aurent/vit_base_patch14_224\.dinobloom"):
        load_backbone(get_backbone("dinobloom-b"), "imagenet")


def test_an_input_that_patches_do_not_fill_is_refused():
    with pytest.raises(ConfigError, match="multiple of 14, such as 126"):
        get_backbone("dinobloom-s", 128)
    assert get_backbone("dinobloom-s", 126).input_px == 126


@pytest.mark.slow
def test_a_smaller_input_extracts(tmp_path, smears):
    config = ExtractConfig(
        backbone="dinobloom-s", weights="random", views=1, limit=4, batch_size=2, precision="fp32", input_px=56
    )
    cache = read_cache(extract(smears, tmp_path / "small.h5", config).cache)
    assert cache.embeddings.shape == (4, 1, 384)
    assert np.isfinite(cache.embeddings).all()


@pytest.mark.parametrize(
    ("paths", "sites", "images"),
    [
        (["a/x1.jpg", "a/x2.jpg"], ["pbc", "bccd"], 1),
        (["PBC_dataset/monocyte/q.jpg", "other/r.jpg"], [], 1),
        (["monocyte/MO_106056.jpg", "neutrophil/BNE_4411.jpg", "neutrophil/z3_1.jpg"], [], 2),
        (["BLA/BLA_00001.jpg", "BLA/BLA_1.jpg"], [], 1),
        (["MYO/MYO_0001.tiff", "MYO/MYO_0001.png", "x/OMYO_0001.tiff"], [], 1),
        (["AML-Cytomorphology_MLL_Helmholtz/control/image_0.tif"], [], 1),
        (["Raabin-WBC/Test-A/Basophil/1.jpg", "rabin/1.jpg"], [], 1),
        (["a.png", "b.png"], ["Chula", "bmc"], 1),
        (["Early/WBC-Malignant-Early-001.jpg", "SLOMO_1234.jpg"], [], 0),
    ],
)
def test_images_that_it_was_trained_on_are_recognised_by_name(paths, sites, images):
    found = recognise_training_sets("dinobloom-b", paths, sites)
    assert len(found) == (images > 0)
    assert all(f"{images} of {len(paths)}" in text for text in found)
    assert recognise_training_sets("densenet201", paths, sites) == ()


@pytest.mark.slow
def test_the_verdict_says_so(tmp_path, smears):
    from ball_features.runs.evidence_of import cache_evidence

    folder = tmp_path / "images"
    shutil.copytree(smears, folder)
    first = sorted(folder.glob("Benign/*"))[0]
    first.rename(first.with_name(f"EO_106056{first.suffix}"))
    config = ExtractConfig("densenet121", weights="random", input_px=64)
    out = extract(folder, tmp_path / "c.h5", config).cache
    cache = read_cache(out)
    assert cache_evidence(cache, str(out))[1].trained_on == ()
    as_if = type(cache)(**{**cache.__dict__, "attributes": cache.attributes | {"backbone": "dinobloom-b"}})
    (text,) = cache_evidence(as_if, str(out))[1].trained_on
    assert text.startswith("Acevedo et al. 2020")
    first.with_name(f"EO_106056{first.suffix}").unlink()
    out = extract(folder, tmp_path / "d.h5", config).cache
    cache = read_cache(out)
    as_if = type(cache)(**{**cache.__dict__, "attributes": cache.attributes | {"backbone": "dinobloom-b"}})
    own = cache_evidence(as_if, str(out))[1]
    assert own.trained_on == () and (own.collections, len(own.recognised)) == (13, 8)
