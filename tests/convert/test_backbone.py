"""The backbone of any checkpoint loads into a network, with the values of the file."""

import numpy as np
import pytest
from mindspore import Tensor

from mindcv.convert import (
    backbone_name,
    fill_weights,
    from_mindcv,
    open_backbone,
    weight_parameters,
    write_ckpt,
    write_safetensors,
)
from mindcv.models import FCMAE
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError


def backbone(num_classes):
    return ConvNeXt(3, num_classes, (1, 1, 1, 1), (4, 4, 8, 8), use_grn=True)


def numbered(network, root=""):
    """Return new values for the weights of a network, all different, by the names of a file."""
    shapes = {name: tuple(weight.shape) for name, weight in weight_parameters(network).items()}
    rng = np.random.default_rng(0)
    return {root + name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def pretrained():
    return numbered(FCMAE(backbone(0), img_size=64, decoder_embed_dim=8))


def files(folder):
    """Write a backbone in files of each kind. Return kind -> path and the values by this library's names."""
    arrays = pretrained()
    encoder = {name[8:]: array for name, array in arrays.items() if name.startswith("encoder.")}
    paths = {kind: folder / f"{kind}.safetensors" for kind in ("official", "sparse", "timm")}
    paths["pretrain.py"] = folder / "fcmae-1_2.ckpt"
    write_ckpt(paths["pretrain.py"], {name: Tensor(array) for name, array in arrays.items()}, {})
    write_safetensors(paths["official"], from_mindcv(encoder, "official"))
    sparse = {**from_mindcv(encoder, "fcmae"), "mask_token": np.zeros((1, 8, 1, 1), np.float32)}
    write_safetensors(paths["sparse"], sparse)
    write_safetensors(paths["timm"], from_mindcv(encoder, "timm"))
    return paths, encoder


@pytest.mark.parametrize("num_classes", [0, 3])
def test_open_backbone_reads_encoders_of_every_layout(tmp_path, num_classes):
    paths, encoder = files(tmp_path)
    for kind, path in paths.items():
        network = backbone(num_classes)
        before = {name: weight.asnumpy().copy() for name, weight in weight_parameters(network).items()}
        fill_weights(network, open_backbone(path), path, replace_head=True)
        for name, weight in weight_parameters(network).items():
            np.testing.assert_array_equal(weight.asnumpy(), encoder.get(name, before[name]), err_msg=f"{kind} {name}")


def test_open_backbone_leaves_out_the_decoder_and_says_so(tmp_path, capsys):
    path = tmp_path / "a.ckpt"
    write_ckpt(path, {name: Tensor(array) for name, array in pretrained().items()}, {})
    assert all(name.startswith("encoder.feature.") for name in open_backbone(path).arrays)
    assert capsys.readouterr().err == f"{path}: the decoder is left out: decoder, mask_token, pred, proj\n"


@pytest.mark.parametrize("root", ["", "student.backbone."])
def test_open_backbone_keeps_the_last_norm_of_a_classifier_and_leaves_out_its_head(tmp_path, root):
    arrays = numbered(backbone(5), root)
    write_safetensors(tmp_path / "a.safetensors", arrays)
    contents = open_backbone(tmp_path / "a.safetensors")
    assert not any("classifier" in name for name in contents.arrays)
    network = backbone(0)
    fill_weights(network, contents, "a", replace_head=True)
    np.testing.assert_array_equal(network.norm.gamma.asnumpy(), arrays[f"{root}norm.gamma"])


def test_open_backbone_reads_an_encoder_with_a_last_norm(tmp_path):
    """The published DINOv3 and EUPE files are like this."""
    arrays = numbered(ConvNeXt(3, 0, (1, 1, 1, 1), (4, 4, 8, 8)))
    write_safetensors(tmp_path / "a.safetensors", from_mindcv(arrays, "timm"))
    network = ConvNeXt(3, 0, (1, 1, 1, 1), (4, 4, 8, 8))
    fill_weights(network, open_backbone(tmp_path / "a.safetensors"), "a", replace_head=True)
    for name, weight in weight_parameters(network).items():
        np.testing.assert_array_equal(weight.asnumpy(), arrays[name], err_msg=name)


def test_open_backbone_names_the_backbone_in_the_metadata(tmp_path):
    metadata = {
        "options": {"model": "fcmae_convnextv2_atto", "num_classes": 4, "crop_pct": 0.9},
        "class_to_idx": {"cat": 0},
        "pretraining": {"mask_ratio": 0.6},
    }
    write_ckpt(tmp_path / "a.ckpt", {name: Tensor(array) for name, array in pretrained().items()}, metadata)
    assert open_backbone(tmp_path / "a.ckpt").metadata == {
        "options": {"model": "convnextv2_atto", "crop_pct": 0.9},
        "pretraining": {"mask_ratio": 0.6},
    }
    assert backbone_name("convnext_tiny") == "convnext_tiny"


def test_open_backbone_refuses_a_file_of_another_network(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"conv1.weight": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"a\.safetensors'.*no known layout.*conv1\.weight"):
        open_backbone(tmp_path / "a.safetensors")
