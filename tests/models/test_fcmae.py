"""FCMAE is compared with a recorded sparse reference, with a float64 reference in NumPy, and with its properties."""

from pathlib import Path

import mindspore as ms
import numpy as np
import parity
import plain_fcmae
import pytest
from mindspore import Tensor
from mindspore.nn.utils import no_init_parameters

from mindcv import create_model, list_models
from mindcv.models import FCMAE, ConvNeXt, random_mask
from mindcv.models.parameter_roles import ParameterRole
from mindcv.utils.errors import UserError

RECORDED = np.load(Path(parity.FOLDER, "fcmae", "fcmae.npz"))
TINY = {"decoder_embed_dim": 12, "img_size": 64}
# Images of 2 x 2 patches, of which different numbers are visible.
MASK = np.array([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]], np.float32)


@pytest.fixture(params=["visible", "dense"])
def form(request):
    """The kernels that compute visible patches only, and the layers that compute whole maps."""
    return request.param


def build(form, backbone=None, **options):
    """Build an FCMAE, by default a tiny one whose weights are so large that every layer matters."""
    network = FCMAE(backbone or tiny_backbone(), **{**TINY, **options}).set_train()
    rng = np.random.default_rng(3)
    for parameter in network.get_parameters():
        spread = 0.3 if parameter.ndim != 4 or parameter.shape[0] == 1 else 0.2
        base = 1.0 if parameter.name.endswith("norm.gamma") else 0.0
        parameter.set_data(Tensor((base + spread * rng.standard_normal(parameter.shape)).astype(np.float32)))
    return chosen(network, form)


def tiny_backbone(**options):
    return ConvNeXt(3, 0, **{"depths": (1, 2, 1, 1), "dims": (4, 8, 8, 12), "use_grn": True, **options})


def chosen(network, form):
    if form == "visible":
        assert network.encoder.visible_form is not None
    else:
        network.encoder.visible_form = None
    return network


def batch(rng, mask=MASK, side=64):
    return Tensor(rng.standard_normal((len(mask), 3, side, side)).astype(np.float32)), Tensor(mask)


def gradients_of(network, images, mask):
    weights = network.trainable_params()
    loss, found = ms.value_and_grad(lambda *inputs: network(*inputs)[0], None, weights)(images, mask)
    return loss.asnumpy(), {weight.name: gradient.asnumpy() for weight, gradient in zip(weights, found)}


def official_name(name):
    """Return the name that the rule of the recorded weights has for a parameter."""
    parts = name.removeprefix("encoder.feature.").split(".")
    if name.startswith("encoder."):
        stage, is_stage = divmod(int(parts[0]), 2)
        parts[0] = f"{'stages' if is_stage else 'downsample_layers'}.{stage}"
    if "grn" not in parts:
        parts[-1] = {"gamma": "weight", "beta": "bias"}.get(parts[-1], parts[-1])
    return ".".join(parts)


def recorded_value(name, shape):
    if name == "mask_token":
        value = parity.draw(name, (1, shape[-1], 1, 1))
        return (0.02 * value / np.abs(value).max()).reshape(shape)
    if name in ("proj.weight", "pred.weight"):
        return parity.weight(name, (*shape, 1, 1)).reshape(shape)
    return parity.weight(name, shape)


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_fcmae_gives_the_predictions_and_losses_of_the_sparse_reference(form, scope, kernel_calls):
    network = chosen(FCMAE("convnextv2_atto", img_size=96, grn_scope=scope).set_train(False), form)
    for parameter in network.get_parameters():
        value = recorded_value(official_name(parameter.name), parameter.shape)
        parameter.set_data(Tensor(value.astype(np.float32)))
    images, mask = Tensor(parity.image((2, 3, 96, 96))), Tensor(RECORDED["mask"])
    for normalises in (True, False):
        network.norm_pix_loss = normalises
        loss, predicted = network(images, mask)
        np.testing.assert_allclose(loss.asnumpy(), RECORDED[f"{scope}/loss_norm_pix_{normalises}".lower()], rtol=1e-5)
    assert predicted.shape == (2, 9, 32 * 32 * 3)
    np.testing.assert_allclose(predicted.asnumpy()[..., :16], RECORDED[f"{scope}/pred_first16"], atol=2e-4, rtol=0)
    means = predicted.asnumpy().mean(-1)
    np.testing.assert_allclose(means, RECORDED[f"{scope}/pred_patch_mean"], atol=2e-4, rtol=0)
    assert ("VisibleBlockV2" in kernel_calls) == (form == "visible")


@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("normalises", [True, False])
def test_fcmae_gradients_are_those_of_a_float64_reference_by_finite_differences(form, scope, normalises, rng):
    network = build(form, grn_scope=scope, norm_pix_loss=normalises)
    images, mask = batch(rng)
    loss, gradients = gradients_of(network, images, mask)
    weights = {p.name: p.asnumpy().astype(np.float64) for p in network.get_parameters()}

    def reference(weights):
        values = images.asnumpy().astype(np.float64)
        return plain_fcmae.loss_of(weights, values, mask.asnumpy(), 32, scope == "batch", normalises)

    np.testing.assert_allclose(loss, reference(weights), rtol=1e-5)
    scale = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        ahead, behind = (reference({**weights, name: weights[name] + step * direction}) for step in (1e-5, -1e-5))
        slope = (ahead - behind) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), slope, atol=2e-5 * scale, rtol=2e-4, err_msg=name)


def test_fcmae_with_convnext_v1_has_the_gradients_of_the_reference_and_warns(rng, caplog):
    network = build("dense", tiny_backbone(use_grn=False, layer_scale_init_value=0.5))
    assert "the encoder has no GRN" in caplog.text and network.encoder.visible_form is None
    images, mask = batch(rng)
    weights = {p.name: p.asnumpy().astype(np.float64) for p in network.get_parameters()}
    expected = plain_fcmae.loss_of(weights, images.asnumpy().astype(np.float64), MASK, 32, False, True)
    np.testing.assert_allclose(network(images, mask)[0].asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_removed_pixels_change_neither_the_features_nor_the_prediction(form, scope, rng):
    network = build(form, grn_scope=scope)
    images, mask = batch(rng)
    removed = np.kron(MASK.reshape(-1, 2, 2), np.ones((32, 32)))[:, None] > 0
    other = Tensor(np.where(removed, np.float32(7.5), images.asnumpy()))
    for of_network in (network.forward_encoder, lambda *inputs: network(*inputs)[1]):
        np.testing.assert_array_equal(of_network(images, mask).asnumpy(), of_network(other, mask).asnumpy())
    features = network.forward_encoder(images, mask).asnumpy()
    assert not features[MASK.reshape(-1, 2, 2) > 0].any() and (features != 0).any()


def test_encoder_with_nothing_removed_gives_the_map_of_the_backbone(form, rng):
    backbone = tiny_backbone()
    network = build(form, backbone)
    images, mask = batch(rng, np.zeros_like(MASK))
    expected = backbone.set_train(False).forward_features(images).asnumpy()
    found = network.forward_encoder(images, mask).asnumpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)


def test_dead_channels_have_finite_gradients(form, rng):
    network = build(form)
    block = network.encoder.feature[1][0]
    for parameter in (block.pwconv1.weight, block.pwconv1.bias):
        value = parameter.asnumpy().copy()
        value[:3] = 0  # GELU and the norm of these channels are 0
        parameter.set_data(Tensor(value))
    _, gradients = gradients_of(network, *batch(rng))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients["encoder.feature.1.0.pwconv1.weight"][3:].any()


def test_loss_is_0_with_a_warning_when_nothing_is_removed(rng, capsys):
    images, mask = batch(rng, np.zeros_like(MASK))
    assert float(build("visible")(images, mask)[0].asnumpy()) == 0.0
    assert "warning: the mask removes no patch, so the loss is 0" in capsys.readouterr().err


def test_recomputed_stages_give_the_same_bits(form, rng):
    images, mask = batch(rng)
    loss, gradients = gradients_of(build(form), images, mask)
    again, recomputed = gradients_of(build(form, recompute_stages=[0, 1, 2, 3]), images, mask)
    assert loss == again
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(recomputed[name], gradient, err_msg=name)


def test_visible_form_gives_the_same_bits_in_training_and_evaluation(rng):
    network, (images, mask) = build("visible"), batch(rng)
    trained = network(images, mask)[1].asnumpy()
    np.testing.assert_array_equal(network.set_train(False)(images, mask)[1].asnumpy(), trained)


@pytest.mark.parametrize("kind", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_fcmae_in_mixed_precision_is_near_float32(kind, rng, kernel_calls):
    from mindcv.engine import apply_amp

    network, (images, mask) = build("visible"), batch(rng)
    expected = network(images, mask)[0].asnumpy()
    network = apply_amp(network, "O1", dtype=kind)
    kernel_calls.clear()
    loss, gradients = gradients_of(network, images, mask)
    np.testing.assert_allclose(loss, expected, rtol=0.02)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    # MindSpore has float16 operators on CPU, so the plain layers compute it.
    assert ("VisibleBlockV2SavingBf16" in kernel_calls) == (kind == "bfloat16")


def test_larger_patches_hold_several_cells_of_the_last_stage(form, rng):
    network = build(form, patch_size=64, img_size=128)
    images, mask = batch(rng, side=128)
    loss, predicted = network(images, mask)
    assert predicted.shape == (3, 4, 64 * 64 * 3) and np.isfinite(loss.asnumpy())
    # A cell predicts its own pixels: with the identity as the last layer they lie where the cell lies.
    network.pred.weight.set_data(Tensor(np.zeros(network.pred.weight.shape, np.float32)))
    network.pred.bias.set_data(Tensor(np.arange(network.pred.bias.size, dtype=np.float32)))
    patches = network(images, mask)[1].asnumpy().reshape(3, 4, 2, 32, 2, 32, 3)
    expected = np.arange(32 * 32 * 3).reshape(32, 32, 3)
    np.testing.assert_array_equal(patches, np.broadcast_to(expected[:, None], (3, 4, 2, 32, 2, 32, 3)))


def test_graph_mode_gives_the_numbers_of_pynative_mode(rng):
    images, mask = batch(rng)
    expected = build("visible").set_train(False)(images, mask)[1].asnumpy()
    ms.set_context(mode=ms.GRAPH_MODE)
    found = build("visible").set_train(False)(images, mask)[1].asnumpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_images_of_another_multiple_of_the_patch_size_are_accepted(form, rng):
    network = build(form)
    mask = np.array([[0, 1, 1, 0, 0, 1]], np.float32)
    images = rng.standard_normal((1, 3, 64, 96)).astype(np.float32)
    weights = {p.name: p.asnumpy().astype(np.float64) for p in network.get_parameters()}
    expected = plain_fcmae.loss_of(weights, images.astype(np.float64), mask, 32, False, True)
    np.testing.assert_allclose(network(Tensor(images), Tensor(mask))[0].asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0.6, 0.75, 0.5])
def test_random_mask_keeps_the_papers_number_of_patches(ratio):
    mask = random_mask(64, 49, ratio, 5)
    assert mask.dtype == np.float32 and set(np.unique(mask)) == {0, 1}
    assert (mask.sum(1) == 49 - int(49 * (1 - ratio))).all()
    np.testing.assert_array_equal(mask, random_mask(64, 49, ratio, np.random.default_rng(5)))
    assert (mask != random_mask(64, 49, ratio, 6)).any()


def test_random_mask_removes_each_patch_equally_often():
    shares = random_mask(20_000, 9, 0.6, 1).mean(0)
    deviation = np.sqrt(6 / 9 * 3 / 9 / 20_000)
    assert np.abs(shares - 6 / 9).max() < 5 * deviation


@pytest.mark.parametrize("model", list_models(module="fcmae"))
def test_every_size_of_convnext_v2_has_a_masked_autoencoder(model):
    with no_init_parameters():  # shapes only: initial values of the largest take gigabytes
        network = create_model(model, img_size=96, decoder_embed_dim=16)
        backbone = create_model(model.removeprefix("fcmae_"), num_classes=0)
    wanted = {f"encoder.{p.name}": p.shape for p in backbone.feature.get_parameters()}
    assert {p.name: p.shape for p in network.encoder.get_parameters()} == wanted


def test_parameter_roles_name_the_parts_of_encoder_and_decoder():
    roles = build("visible").parameter_roles()
    assert roles.keys() == {p.name for p in build("visible").get_parameters()}
    assert roles["encoder.feature.3.1.pwconv1.weight"] == ParameterRole("block", 1, 1, True)
    assert roles["mask_token"] == ParameterRole("decoder") and roles["pred.weight"].is_decayed


IMAGES = Tensor(np.zeros((2, 3, 64, 64), np.float32))


@pytest.mark.parametrize(
    ("images", "mask", "message"),
    [
        (
            IMAGES,
            np.zeros((2, 5), np.float32),
            r"mask has shape \[2, 5\] and type float32; .* need \[2, 4\] and float32",
        ),
        (IMAGES, np.zeros((3, 4), np.float32), r"mask has shape \[3, 4\]"),
        (IMAGES, np.zeros((2, 4), np.int32), "type int32; .* and float32"),
        (IMAGES, np.full((2, 4), 0.5, np.float32), "values other than 0, for a visible patch, and 1"),
        (IMAGES, np.array([[0, 1, 1, 1], [1, 1, 1, 1]], np.float32), "leaves no patch of image 1 visible"),
        (Tensor(np.zeros((2, 3, 64, 80), np.float32)), np.zeros((2, 4), np.float32), "width is not a multiple of the"),
    ],
)
def test_wrong_mask_is_an_error_that_says_what_it_should_be(images, mask, message):
    with pytest.raises(UserError, match=message):
        build("visible")(images, Tensor(mask))


def test_call_without_a_mask_is_an_error():
    with pytest.raises(UserError, match=r"called without a mask; .* network\(images, mask\)"):
        build("visible")(IMAGES)


def test_mask_that_is_no_tensor_is_an_error():
    with pytest.raises(UserError, match="mask is of type ndarray; it must be a MindSpore tensor"):
        build("visible")(IMAGES, np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 100}, "img_size must be a multiple of patch_size, 32, got 100: the nearest are 96 and 128"),
        (
            {"patch_size": 16},
            "patch_size, .* a multiple of 32, the encoder's reduction, got 16; .* are stem_patch_size",
        ),
        ({"mask_ratio": 0.0}, "mask_ratio must be a number above 0"),
        ({"mask_ratio": 1.5}, "mask_ratio must be a number"),
        ({"mask_ratio": 0.9}, "mask_ratio 0.9 leaves none of the 4 patches visible"),
        ({"grn_scope": "image"}, "grn_scope"),
        ({"encoder": "fcmae_convnextv2_atto"}, "encoder must be a backbone, such as 'convnextv2_atto'"),
        ({"encoder": 3}, "encoder must be the name of a ConvNeXt V2 or a ConvNeXt, got 3"),
    ],
)
def test_wrong_argument_of_fcmae_is_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        FCMAE(**{"encoder": tiny_backbone(), **TINY, **options})


def test_published_weights_of_a_masked_autoencoder_are_refused():
    with pytest.raises(UserError, match="no published weights of .fcmae_convnextv2_atto.*convnextv2_atto.fcmae"):
        create_model("fcmae_convnextv2_atto", pretrained=True)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_classes": 10}, "fcmae_convnextv2_atto has no classifier: leave num_classes out"),
        ({"mask_patch_size": 64}, "give the option mask_patch_size of pretrain.py as patch_size"),
        ({"patch_size": 2}, "patch_size, which is that of the mask, .* the patches of the stem are stem_patch_size"),
    ],
)
def test_keyword_that_a_masked_autoencoder_lacks_is_one_sentence(keywords, message):
    with pytest.raises(UserError, match=message):
        create_model("fcmae_convnextv2_atto", **keywords)
