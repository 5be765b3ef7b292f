"""`patch_size`, the size and stride of the stem, which is 4 by default."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv import create_model
from mindcv.config import InferConfig, PretrainConfig, TrainConfig, ValidateConfig, parse_args
from mindcv.convert import CheckpointContents, load_weights, write_ckpt
from mindcv.convert.layouts import weight_parameters
from mindcv.data import create_dataset
from mindcv.models import FCMAE, ConvNeXtFeatures, pack_for_inference, random_mask
from mindcv.models.complexity import count_macs
from mindcv.models.convnext import ConvNeXt
from mindcv.recipe import build_teacher, checkpoint_metadata
from mindcv.recipe_pretraining import build_masked_autoencoder
from mindcv.recipe_weights import build_model, open_weights
from mindcv.utils.errors import CheckpointError, ConfigError, UserError

SIZES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 16), "num_classes": 5}


def build(patch_size, rng, **options):
    network = ConvNeXt(**{**SIZES, "use_grn": True, "patch_size": patch_size, **options}).set_train(False)
    for parameter in network.trainable_params():
        if parameter.name.endswith("weight"):
            parameter.set_data(Tensor(0.3 * rng.standard_normal(parameter.shape).astype(np.float32)))
    return network


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 3, 32, 48)).astype(np.float32)


@pytest.mark.parametrize("patch_size", [1, 2, 3, 8])
def test_stem_is_a_convolution_with_the_stride_patch_size(kernels, rng, patch_size):
    """The expected values are a sum over the offsets in a patch. Rows and columns that fill no patch are left out."""
    pixels = rng.standard_normal((2, 3, 65, 67)).astype(np.float32)
    stem = build(patch_size, rng).feature[0][0]
    weight, bias = stem.weight.asnumpy().astype(np.float64), stem.bias.asnumpy()
    assert weight.shape == (8, 3, patch_size, patch_size)
    rows, cols = 65 // patch_size, 67 // patch_size
    expected = np.zeros((2, rows, cols, 8)) + bias
    for i in range(patch_size):
        for j in range(patch_size):
            shifted = pixels[:, :, i::patch_size, j::patch_size][:, :, :rows, :cols]
            expected += np.einsum("nchw,oc->nhwo", shifted, weight[:, :, i, j])
    np.testing.assert_allclose(stem(Tensor(pixels)).asnumpy(), expected, atol=2e-5)


def test_network_with_patches_of_2_equals_one_with_patches_of_4_on_enlarged_images(kernels, rng, images):
    """Each pixel becomes 2 x 2 equal pixels, so the sums of 2 x 2 weights give the same output."""
    large = build(4, rng)
    weights = {name: parameter.asnumpy() for name, parameter in weight_parameters(large).items()}
    stem = weights["feature.0.0.weight"]
    weights["feature.0.0.weight"] = stem.reshape(8, 3, 2, 2, 2, 2).sum((3, 5))
    small = build(2, rng)
    for name, parameter in weight_parameters(small).items():
        parameter.set_data(Tensor(weights[name]))
    expected = large(Tensor(images.repeat(2, 2).repeat(2, 3))).asnumpy()
    np.testing.assert_allclose(small(Tensor(images)).asnumpy(), expected, atol=2e-5)
    assert small.forward_features(Tensor(images)).shape == (2, 16, 2, 3)


@pytest.mark.parametrize("patch_size", [1, 2, 8])
def test_feature_info_and_maps_follow_patch_size(rng, patch_size):
    images = Tensor(rng.standard_normal((1, 3, 64, 128)).astype(np.float32))
    network = build(patch_size, rng)
    assert network.patch_size == patch_size
    assert network.feature_info.reduction() == [patch_size, 2 * patch_size, 4 * patch_size, 8 * patch_size]
    backbone = ConvNeXtFeatures(network)
    assert [m.shape[2:] for m in backbone(images)] == [(64 // r, 128 // r) for r in network.feature_info.reduction()]
    assert ConvNeXtFeatures(network, [0, 1]).least_side == 2 * patch_size


def test_create_model_takes_patch_size_with_features_only():
    network = create_model("convnextv2_atto", features_only=True, out_indices=[0, 3], patch_size=2)
    assert network.feature_info.reduction() == [2, 16] and network.feature[0][0].weight.shape == (40, 3, 2, 2)
    assert create_model("convnextv2_atto").feature_info.reduction() == [4, 8, 16, 32]


def test_network_refuses_images_that_are_smaller_than_its_reduction(rng):
    network = build(2, rng)
    assert network(Tensor(np.zeros((1, 3, 16, 16), np.float32))).shape == (1, 5)
    with pytest.raises(UserError, match="height and width of at least 16 pixels"):
        network(Tensor(np.zeros((1, 3, 16, 15), np.float32)))


@pytest.mark.parametrize("value", [0, -2, 2.0, "2", True])
def test_patch_size_that_is_no_whole_number_is_named(value):
    with pytest.raises(UserError, match=f"patch_size must be a whole number of at least 1, got {value!r}"):
        ConvNeXt(**SIZES, patch_size=value)


@pytest.mark.parametrize("keep_weights", [True, False])
def test_packed_network_computes_the_same_bits(rng, images, keep_weights):
    network = build(2, rng)
    expected = network(Tensor(images)).asnumpy()
    np.testing.assert_array_equal(pack_for_inference(network, keep_weights)(Tensor(images)).asnumpy(), expected)


def test_count_macs_counts_the_maps_of_a_smaller_stem(rng):
    """Patches of 2 give four times the positions of patches of 4, so every product but the stem's and the head's
    costs four times as much. The stem has a quarter of the weights and costs the same."""
    default, finer = count_macs(build(4, rng), 64), count_macs(build(2, rng), 64)
    stem, head, last_norm = 8 * 3 * 4 * 4 * 16 * 16, 5 * 16, 5 * 16
    assert finer - stem - head - last_norm == 4 * (default - stem - head - last_norm)


# Checkpoints


def test_load_weights_names_the_stem_of_another_size(tmp_path, rng):
    write_ckpt(tmp_path / "a.ckpt", weight_parameters(build(2, rng)), {})
    with pytest.raises(CheckpointError) as caught:
        load_weights(build(4, rng), tmp_path / "a.ckpt")
    assert str(caught.value).endswith(
        "does not fit the model: the checkpoint's stem has patches of 2 pixels, but the model's has patches of 4: "
        "give patch_size 2; 1 misshaped: feature.0.0.weight has the shape [8, 3, 2, 2], the model's has [8, 3, 4, 4]"
    )
    grey = build(4, rng, in_channels=1)
    with pytest.raises(CheckpointError, match="patches of 2 pixels.*has the shape .8, 1, 2, 2."):
        load_weights(grey, tmp_path / "a.ckpt", adapt_stem=True)


MODEL = ["--model", "convnextv2_atto", "--mode", "1"]


def test_build_model_and_metadata_follow_the_option_patch_size():
    config = parse_args([*MODEL, "--patch_size", "2", "--in_channels", "1", "--mean", "1", "--std", "1"], TrainConfig)
    assert build_model(config, 10).feature[0][0].weight.shape == (40, 1, 2, 2)
    assert checkpoint_metadata(config, create_dataset("digits"))["options"]["patch_size"] == 2
    assert build_model(parse_args(MODEL, TrainConfig), 10).patch_size == 4


@pytest.mark.parametrize("config_class", [ValidateConfig, InferConfig])
def test_open_weights_reads_patch_size_from_the_checkpoint(monkeypatch, config_class):
    held = {"options": {"model": "convnextv2_atto", "patch_size": 2}}
    monkeypatch.setattr("mindcv.recipe_weights.open_checkpoint", lambda path, ema: CheckpointContents({}, held))
    argv = ["--ckpt_path", "a.ckpt", *(["--image_path", "a.png"] if config_class is InferConfig else [])]
    config, _, _ = open_weights(parse_args(argv, config_class))
    assert config.patch_size == 2 and "patch_size" in config.completed_later()
    del held["options"]["patch_size"]  # a checkpoint that was saved before the option existed
    assert open_weights(parse_args(argv, config_class))[0].patch_size == 4


def test_build_teacher_reads_patch_size_from_its_checkpoint(tmp_path):
    teacher = create_model("convnextv2_atto", num_classes=5, patch_size=2)
    argv = [*MODEL, "--teacher_model", "convnextv2_atto", "--teacher_ckpt_path", str(tmp_path / "a.ckpt")]
    config = parse_args(argv, TrainConfig)
    write_ckpt(tmp_path / "a.ckpt", weight_parameters(teacher), {"options": {"patch_size": 2}})
    assert build_teacher(config, 5).patch_size == 2
    write_ckpt(tmp_path / "a.ckpt", weight_parameters(teacher), {"options": "of another program"})
    with pytest.raises(CheckpointError, match="give patch_size 2"):
        build_teacher(config, 5)


def test_parse_args_refuses_patches_that_leave_no_pixel():
    assert parse_args([*MODEL, "--patch_size", "4", "--image_resize", "32"]).patch_size == 4
    with pytest.raises(ConfigError, match="patch_size: is above an eighth of image_resize"):
        parse_args([*MODEL, "--patch_size", "5", "--image_resize", "32"])


# Masked pre-training


def test_fcmae_passes_stem_patch_size_to_its_encoder(kernels, rng):
    network = FCMAE("convnextv2_atto", 32, 16, decoder_embed_dim=16, in_channels=1, stem_patch_size=2)
    images, mask = rng.standard_normal((2, 1, 32, 32)).astype(np.float32), random_mask(2, 4, 0.5)
    assert network.encoder.feature[0][0].weight.shape == (40, 1, 2, 2)
    assert network.pred.weight.shape == (16 * 16, 16)  # a cell of the last map predicts 16 x 16 pixels
    loss, pred = network(Tensor(images), Tensor(mask))
    assert pred.shape == (2, 4, 256)
    patches = images.reshape(2, 2, 16, 2, 16).transpose(0, 1, 3, 2, 4).reshape(2, 4, 256).astype(np.float64)
    patches = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    errors = ((pred.asnumpy() - patches) ** 2).mean(-1)
    np.testing.assert_allclose(loss.asnumpy(), (errors * mask).sum() / mask.sum(), rtol=1e-5)


def test_fcmae_encoder_with_a_finer_stem_equals_the_backbone_when_nothing_is_removed(kernels, rng, images):
    backbone = build(2, rng, num_classes=0)
    expected = backbone.forward_features(Tensor(images)).asnumpy()
    network = FCMAE(backbone, 32, 16, decoder_embed_dim=16)
    found = network.forward_encoder(Tensor(images), ms.ops.zeros((2, 6), ms.float32)).asnumpy()
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, atol=2e-5)


def test_fcmae_refuses_sizes_that_do_not_fit_the_stem(rng):
    with pytest.raises(UserError, match="patch_size, .* must be a multiple of 16, the encoder's reduction, got 24"):
        FCMAE(build(2, rng), 48, 24)
    with pytest.raises(UserError, match="stem_patch_size is 4, but the stem of the encoder has patches of 2"):
        FCMAE(build(2, rng), 32, 16, stem_patch_size=4)
    with pytest.raises(UserError, match="stem_patch_size must be a whole number of at least 1, got 0"):
        FCMAE("convnextv2_atto", stem_patch_size=0)


def test_build_masked_autoencoder_gives_patch_size_to_the_stem():
    argv = ["--model", "fcmae_convnextv2_atto", "--image_resize", "64", "--patch_size", "2", "--mask_patch_size", "16"]
    network = build_masked_autoencoder(parse_args(argv, PretrainConfig))
    assert network.num_patches == 16 and network.encoder.feature[0][0].weight.shape == (40, 3, 2, 2)
