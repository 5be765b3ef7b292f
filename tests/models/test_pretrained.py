"""Tests of the table of published weights, and of the way of a file from a server or cache into a network."""

import hashlib
import json
import os
import re
import runpy
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

import mindcv
from mindcv import create_model, is_model, is_model_pretrained, list_models, list_pretrained_tags
from mindcv.convert import read_ckpt, write_safetensors
from mindcv.data import Compose, create_transforms
from mindcv.models import get_pretrained_cfg, get_pretrained_cfg_value, has_pretrained_cfg_key, pretrained
from mindcv.models.pretrained import fetch_pretrained, markdown_table, pretrained_options, pretrained_weights
from mindcv.models.pretrained_table import PUBLISHED, Preprocessing
from mindcv.recipe import PREPROCESSING
from mindcv.utils import download
from mindcv.utils.errors import UserError

ROOT = Path(__file__).parents[2]
ATTO = "convnext_atto.d2_in1k"

# What create_model(name, pretrained=True) takes: timm's first tag of each name.
DEFAULTS = {
    "convnext_atto": "d2_in1k",
    "convnext_femto": "d1_in1k",
    "convnext_pico": "d1_in1k",
    "convnext_nano": "in12k_ft_in1k",
    "convnext_tiny": "in12k_ft_in1k",
    "convnext_small": "in12k_ft_in1k",
    "convnext_base": "fb_in22k_ft_in1k",
    "convnext_large": "fb_in22k_ft_in1k",
    "convnext_xlarge": "fb_in22k_ft_in1k",
    "convnextv2_atto": "fcmae_ft_in1k",
    "convnextv2_femto": "fcmae_ft_in1k",
    "convnextv2_pico": "fcmae_ft_in1k",
    "convnextv2_nano": "fcmae_ft_in22k_in1k",
    "convnextv2_tiny": "fcmae_ft_in22k_in1k",
    "convnextv2_base": "fcmae_ft_in22k_in1k",
    "convnextv2_large": "fcmae_ft_in22k_in1k",
    "convnextv2_huge": "fcmae_ft_in22k_in1k_384",
}

# (name, pixels, shorter side after resizing or 0 for a squeezed square, interpolation, top-1, licence, classes).
FACTS = [
    ("convnext_atto.d2_in1k", 288, 303, "bicubic", 77.008, "Apache-2.0", 1000),
    ("convnext_nano.r384_in12k", 384, 384, "bicubic", None, "Apache-2.0", 11821),
    ("convnext_tiny.in12k_ft_in1k", 288, 288, "bicubic", 84.450, "Apache-2.0", 1000),
    ("convnext_tiny.tv_in1k", 224, 236, "bilinear", 82.520, "BSD-3-Clause", 1000),
    ("convnext_small.tv_in1k", 224, 230, "bilinear", 83.616, "BSD-3-Clause", 1000),
    ("convnext_base.tv_in1k", 224, 232, "bilinear", 84.062, "BSD-3-Clause", 1000),
    ("convnext_large.tv_in1k", 224, 232, "bilinear", 84.414, "BSD-3-Clause", 1000),
    ("convnext_base.mindcv_in1k", 224, 235, "bicubic", 83.32, "Apache-2.0", 1000),
    ("convnext_base.clip_laiona_augreg_ft_in1k_384", 384, 384, "bicubic", 86.502, "Apache-2.0", 1000),
    ("convnext_large.fb_in22k", 224, 256, "bicubic", None, "MIT", 21841),
    ("convnext_large.fb_in1k_384", 384, 0, "bicubic", 85.5, "MIT", 1000),
    ("convnext_tiny.dinov3_lvd1689m", 224, 224, "bicubic", None, "DINOv3", 0),
    ("convnextv2_tiny.fcmae_ft_in22k_in1k", 224, 256, "bicubic", 83.9, "CC-BY-NC-4.0", 1000),
    ("convnextv2_huge.fcmae_ft_in22k_in1k_512", 512, 0, "bicubic", 88.9, "CC-BY-NC-4.0", 1000),
    ("convnextv2_atto.fcmae", 224, 256, "bicubic", None, "CC-BY-NC-4.0", 0),
]

# Mean and deviation of red, green and blue.
SHARES = {
    "convnext_tiny": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "convnext_base.clip_laiona_augreg_ft_in1k_384": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
CLIP = ([122.77, 116.75, 104.09], [68.5, 66.632, 70.323])

URLS = {
    "convnext_tiny.fb_in1k": "https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors",
    "convnext_tiny.tv_in1k": "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
    "convnext_large.fb_in1k_384": "https://dl.fbaipublicfiles.com/convnext/convnext_large_1k_384.pth",
    "convnext_small.mindcv_in1k": (
        "https://download-mindspore.osinfra.cn/toolkits/mindcv/convnext/convnext_small-e23008f3.ckpt"
    ),
}


def test_pretrained_weights_without_a_tag_are_those_of_the_default_tag():
    assert {name: list_pretrained_tags(name)[0] for name in list_models(pretrained=True)} == DEFAULTS
    assert set(DEFAULTS) < set(list_models()) and not is_model_pretrained("convnextv2_small")
    for name, tag in DEFAULTS.items():
        assert pretrained_weights(name).name == f"{name}.{tag}"


@pytest.mark.parametrize("name, size, shorter, interpolation, top_1, license, num_classes", FACTS, ids=lambda v: str(v))
def test_pretrained_table_has_the_published_facts(name, size, shorter, interpolation, top_1, license, num_classes):
    weights = pretrained_weights(name)
    images = weights.preprocessing
    assert (images.image_resize, images.interpolation, weights.top_1) == (size, interpolation, top_1)
    assert (weights.license, weights.num_classes) == (license, num_classes)
    squeezed = images.crop_pct == 1.0 and size >= 384
    assert (0 if squeezed else int(size / images.crop_pct)) == shorter


def test_pretrained_table_rows_are_unique_and_plausible():
    names = [weights.name for weights in PUBLISHED]
    assert len(set(names)) == len(names) > 80
    for weights in PUBLISHED:
        assert is_model(weights.name) and weights.url.startswith("https://")
        assert weights.source.startswith("https://github.com/")
        trained_by_meta = weights.name.startswith("convnextv2") and "mindcv" not in weights.name
        assert (weights.license == "CC-BY-NC-4.0") == trained_by_meta
        assert weights.sha256 is None or re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", weights.sha256)
        assert weights.sha256 is None or weights.sha256 in weights.url
        assert weights.top_1 is None or (weights.num_classes == 1000 and 75 < weights.top_1 < 90)
        mean, std = CLIP if ".clip_" in weights.name else IMAGENET
        assert np.allclose(weights.preprocessing.mean, mean, atol=0.01)
        assert np.allclose(weights.preprocessing.std, std, atol=0.01)
    for name, url in URLS.items():
        assert pretrained_weights(name).url == url


@pytest.mark.parametrize(
    "name", ["convnext_nano.r384_in12k", "convnext_tiny.in12k_ft_in1k_384", "convnext_tiny.tv_in1k"]
)
def test_pretrained_options_prepare_images_as_pillow_does(name, tmp_path):
    """Each of the three weights has another way to resize and crop, as in the code of their publishers."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8))
    image.save(tmp_path / "a.png")
    if name.endswith("in12k_ft_in1k_384"):
        expected = image.resize((384, 384), Image.BICUBIC)
    elif name.endswith("tv_in1k"):
        expected = image.resize((295, 236), Image.BILINEAR).crop((36, 6, 260, 230))
    else:
        expected = image.resize((480, 384), Image.BICUBIC).crop((48, 0, 432, 384))
    options = {
        key: value for key, value in pretrained_options(pretrained_weights(name)).items() if key in PREPROCESSING
    }
    found = Compose(create_transforms("imagenet", **options))((tmp_path / "a.png").read_bytes(), None)
    wanted = (np.asarray(expected, np.float32) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(found, wanted.transpose(2, 0, 1), atol=1e-5)


def test_pretrained_names_are_known_with_and_without_a_tag():
    assert is_model("convnextv2_tiny.fcmae") and not is_model("convnextv2_tiny.fcma") and not is_model("convnet.fcmae")
    assert mindcv.models.is_model_in_modules("convnextv2_tiny.fcmae", ["convnext"])
    assert is_model_pretrained("convnext_tiny") and is_model_pretrained("convnext_tiny.tv_in1k")
    assert not is_model_pretrained("convnextv2_small") and not is_model_pretrained("convnext_tiny.tv")
    assert list_models("*v2_s*", pretrained=True) == [] and list_pretrained_tags("convnextv2_small") == []
    with pytest.raises(UserError, match="did you mean 'convnext_tiny'"):
        is_model_pretrained("convnext_tinny")


def test_create_model_refuses_names_without_published_weights():
    with pytest.raises(
        UserError, match=r"'fb_in1' is not known; did you mean 'fb_in1k'\? \(there are: .*mindcv_in1k, tv_in1k"
    ):
        create_model("convnext_tiny.fb_in1", pretrained=True)
    with pytest.raises(
        UserError, match=r"no published weights of 'convnextv2_small' \(models that have some: convnext_atto, "
    ):
        create_model("convnextv2_small", pretrained=True)
    with pytest.raises(UserError, match="give pretrained=True, or 'convnextv2_tiny' alone"):
        create_model("convnextv2_tiny.fcmae")


def test_get_pretrained_cfg_has_the_keys_of_mindcv():
    known = get_pretrained_cfg("convnextv2_tiny.fcmae_ft_in1k")
    assert (known["image_resize"], known["crop_pct"], known["num_classes"]) == (224, 0.875, 1000)
    assert get_pretrained_cfg_value("convnext_tiny.tv_in1k", "sha256") == "983f1562"
    assert has_pretrained_cfg_key("convnext_tiny.tv_in1k", "sha256")
    assert not has_pretrained_cfg_key("convnext_tiny.fb_in1k", "sha256")
    with pytest.raises(UserError, match="'urll' is not known; did you mean 'url'"):
        get_pretrained_cfg_value("convnext_tiny", "urll")


def test_pretrained_page_contains_the_generated_table():
    assert markdown_table() in (ROOT / "docs" / "reference" / "pretrained.md").read_text(encoding="utf-8")


class Hub(BaseHTTPRequestHandler):
    """Serve `server.files` (path -> bytes) as Hugging Face does: first a redirect with the digest, then the bytes."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        path = self.path.replace("/cdn", "", 1)
        content = self.server.files.get(path)
        if content is None:
            return self.send_error(404)
        if path == self.path and "/resolve/" in path:
            self.send_response(302)
            self.send_header("Location", f"/cdn{path}")
            self.send_header("X-Linked-ETag", f'"{self.server.told or hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.pieces.pop(0)] if self.server.pieces else content[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Start a local hub at HF_ENDPOINT with empty caches. All other requests go to a proxy that does not exist."""
    monkeypatch.setattr(download, "_PAUSES", (0.0, 0.0, 0.0))
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MINDCV_HOME", str(tmp_path / "mindcv"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files, server.seen, server.pieces, server.told = {}, [], [], ""
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def path_on_hub(name):
    return f"/timm/{name}/resolve/main/model.safetensors"


def bytes_of(arrays, tmp_path):
    write_safetensors(tmp_path / "written.safetensors", arrays, {"format": "pt"})
    return (tmp_path / "written.safetensors").read_bytes()


@pytest.fixture
def atto_on_hub(hub, reference, tmp_path):
    """Publish the weights of the recorded outputs as those of convnext_atto."""
    hub.files[path_on_hub(ATTO)] = bytes_of(reference.weights("convnext_atto"), tmp_path)
    return hub


def test_create_model_downloads_weights_once_and_gives_the_logits_of_the_reference(
    atto_on_hub, reference, tmp_path, capfd
):
    network = create_model("convnext_atto", pretrained=True).set_train(False)
    logits = network(Tensor(reference.image((2, 3, 64, 64)))).asnumpy()
    np.testing.assert_allclose(logits, reference.arrays["convnext_atto/2x64x64/logits"], atol=2e-4, rtol=0)
    assert [path for path, _ in atto_on_hub.seen] == [path_on_hub(ATTO), f"/cdn{path_on_hub(ATTO)}"]
    assert f"{ATTO} has the licence Apache-2.0 (source: https://" in capfd.readouterr().err
    assert os.listdir(tmp_path / "mindcv" / "models") == [f"{ATTO}.safetensors"]
    again = mindcv.convnext_atto(pretrained=True).set_train(False)  # the entry function; from the cache
    np.testing.assert_array_equal(again(Tensor(reference.image((2, 3, 64, 64)))).asnumpy(), logits)
    assert len(atto_on_hub.seen) == 2 and "licence" not in capfd.readouterr().err


def test_fetch_pretrained_continues_an_interrupted_download(atto_on_hub, tmp_path):
    part = tmp_path / "mindcv" / "models" / f"{ATTO}.safetensors.part"
    part.parent.mkdir(parents=True)
    content = atto_on_hub.files[path_on_hub(ATTO)]
    part.write_bytes(content[:1000])
    atto_on_hub.pieces = [5000]
    assert fetch_pretrained(pretrained_weights(ATTO)).read_bytes() == content
    assert [asked for path, asked in atto_on_hub.seen if "cdn" in path] == ["bytes=1000-", "bytes=6000-"]


def test_create_model_refuses_a_download_when_its_digest_differs(atto_on_hub, tmp_path):
    atto_on_hub.told = "0" * 64
    with pytest.raises(
        UserError, match=f"but it must be {'0' * 64}; put the file at .*{ATTO}.safetensors' by hand, or set"
    ):
        create_model(ATTO, pretrained=True)
    assert os.listdir(tmp_path / "mindcv" / "models") == []


def test_create_model_names_url_and_ways_out_when_weights_cannot_be_downloaded(hub, tmp_path):
    with pytest.raises(UserError) as caught:
        create_model("convnextv2_atto.fcmae", pretrained=True)
    message = str(caught.value)
    for part in (f"{hub.url}{path_on_hub('convnextv2_atto.fcmae')}", "404", str(tmp_path / "mindcv" / "models"), "\n"):
        assert (part in message) == (part != "\n"), part
    for variable in ("HF_ENDPOINT", "HF_HOME", "MINDCV_HOME", "https_proxy"):
        assert variable in message
    with pytest.raises(UserError, match="Connection refused.*put the file at .*convnext_tiny-983f1562.pth' by hand"):
        create_model("convnext_tiny.tv_in1k", pretrained=True)


@pytest.mark.parametrize("value", ["1", "yes", "True"])
def test_create_model_sends_no_request_when_hf_hub_offline_is_set(atto_on_hub, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(UserError, match="is in no cache, and HF_HUB_OFFLINE forbids downloading it; put the file at"):
        create_model(ATTO, pretrained=True)
    assert atto_on_hub.seen == []


def test_fetch_pretrained_logs_a_non_commercial_licence(hub, capfd):
    hub.files[path_on_hub("convnextv2_atto.fcmae_ft_in1k")] = b"weights"
    fetch_pretrained(pretrained_weights("convnextv2_atto"))
    assert (
        "licence CC-BY-NC-4.0: no commercial use (source: https://github.com/facebookresearch/ConvNeXt-V2)"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_fetch_pretrained_prefers_its_own_cache_to_that_of_hugging_face(hub, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    below = {"HF_HOME": "hub", "HF_HUB_CACHE": "", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    folder = tmp_path / "cache" / below / f"models--timm--{ATTO}"
    for age, revision in enumerate(["new", "main", "old"]):
        file = folder / "snapshots" / revision / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(revision.encode())
        os.utime(file, (1e9 - age, 1e9 - age))
    assert fetch_pretrained(pretrained_weights(ATTO)).read_bytes() == b"new"
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("main")
    assert fetch_pretrained(pretrained_weights(ATTO)).read_bytes() == b"main"
    own = tmp_path / "mindcv" / "models" / f"{ATTO}.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    assert fetch_pretrained(pretrained_weights(ATTO)).read_bytes() == b"own" and hub.seen == []


def test_fetch_pretrained_downloads_again_when_the_cached_file_has_another_digest(hub, tmp_path):
    """A file in the cache is used only when its digest is the published one."""
    weights = pretrained_weights("convnext_tiny.mindcv_in1k")
    path = tmp_path / "mindcv" / "models" / "convnext_tiny-ae5ff8d7.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    with pytest.raises(UserError, match="Connection refused"):
        fetch_pretrained(weights)
    hub.files["/convnext_tiny-ae5ff8d7.ckpt"] = b"right"
    right = weights._replace(
        url=f"{hub.url}/convnext_tiny-ae5ff8d7.ckpt", sha256=hashlib.sha256(b"right").hexdigest()[:8]
    )
    assert fetch_pretrained(right) == path and path.read_bytes() == b"right"
    fetch_pretrained(right)
    assert len(hub.seen) == 1


def test_create_model_adapts_published_weights_to_other_heads_and_channels(hub, reference, tmp_path, capfd):
    arrays = reference.weights("convnextv2_atto")
    encoder = {name: array for name, array in arrays.items() if not name.startswith(("norm.", "head."))}
    hub.files[path_on_hub("convnextv2_atto.fcmae")] = bytes_of(encoder, tmp_path)
    hub.files[path_on_hub("convnextv2_atto.fcmae_ft_in1k")] = bytes_of(arrays, tmp_path)
    network = create_model("convnextv2_atto.fcmae", pretrained=True, num_classes=7)
    assert (
        "no last norm and no head; the model's last norm keeps its values, "
        "and its head of 7 classes starts from random values and needs training" in capfd.readouterr().err
    )
    np.testing.assert_array_equal(
        network.feature[1][0].pwconv1.weight.asnumpy(), arrays["stages.0.0.pwconv1.weight"].reshape(160, 40)
    )
    assert 0.018 < network.classifier.weight.asnumpy().std() < 0.022
    network = create_model("convnextv2_atto", pretrained=True, num_classes=7, in_channels=1)
    told = capfd.readouterr().err
    assert "the head of 1000 classes is left out" in told and "3 channels are adapted to 1" in told
    np.testing.assert_array_equal(network.norm.gamma.asnumpy(), arrays["norm.weight"])
    network = mindcv.convnextv2_atto(pretrained=True, in_channels=1)
    summed = arrays["downsample_layers.0.0.weight"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.feature[0][0].weight.asnumpy(), summed, atol=1e-6)
    maps = create_model("convnextv2_atto", pretrained=True, features_only=True)(Tensor(reference.image((2, 3, 64, 64))))
    assert [m.shape[1] for m in maps] == [40, 80, 160, 320]


@pytest.fixture
def three_classes(hub, reference, tmp_path, monkeypatch):
    """Publish convnext_atto with 3 classes for images of 32 pixels from -1 to 1, and return a folder of such images."""
    arrays = reference.weights("convnext_atto")
    arrays.update({"head.weight": arrays["head.weight"][:3], "head.bias": arrays["head.bias"][:3]})
    hub.files[path_on_hub(ATTO)] = bytes_of(arrays, tmp_path)
    images = Preprocessing(32, 1.0, "bilinear", (127.5,) * 3, (127.5,) * 3)
    row = pretrained_weights(ATTO)._replace(num_classes=3, preprocessing=images)
    monkeypatch.setattr(pretrained, "PUBLISHED", (row,))
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "abc":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (32, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


@pytest.fixture
def script(monkeypatch):
    """Return a function that runs a script of the repository in this process and returns its exit status."""

    def run(name, *argv):
        monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
        state = np.random.get_state()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        np.random.set_state(state)
        return end.value.code

    return run


def logits_of(folder):
    """Compute the logits of the images below a folder, which Pillow alone prepares."""
    images = [np.asarray(Image.open(path).crop((4, 0, 36, 32)), np.float32) for path in sorted(folder.rglob("*.png"))]
    network = create_model(ATTO, pretrained=True, num_classes=3).set_train(False)
    return network(Tensor(np.stack(images).transpose(0, 3, 1, 2) / np.float32(127.5) - 1)).asnumpy()


def test_scripts_evaluate_published_weights_with_their_preprocessing(three_classes, script):
    logits = logits_of(three_classes / "val")
    of_weights = ["--model", ATTO, "--pretrained", "True", "--mode", "1", "--batch_size", "4"]
    assert script("validate.py", *of_weights, "--data_dir", three_classes, "--results_json", "r.json") == 0
    found = json.loads(Path("r.json").read_text())
    labels = np.repeat([0, 1, 2], 3)
    log_sum = np.log(np.exp(logits).sum(1))
    assert abs(found["loss"] - (log_sum - logits[np.arange(9), labels]).mean()) < 1e-4
    assert abs(found["top_1"] - (logits.argmax(1) == labels).mean()) < 1e-6
    assert found["model"] == ATTO

    Path("names.txt").write_text("a\nb\nc\n")
    where = ["--image_path", three_classes / "val", "--class_names_file", "names.txt", "--results_file", "p.json"]
    assert script("infer.py", *of_weights, *where, "--top_k", "1") == 0
    best = [max(row) for row in np.exp(logits - log_sum[:, None])]
    text = Path("p.json").read_text()
    found = [float(number) for number in re.findall(r"0\.\d+|1\.0", text)]
    np.testing.assert_allclose(found, best, atol=1e-4)


def test_validate_prefers_options_of_the_user_to_those_of_the_weights(three_classes, script, capfd):
    of_weights = ["--model", ATTO, "--pretrained", "True", "--mode", "1", "--data_dir", three_classes]
    assert script("validate.py", *of_weights) == 0
    usual = capfd.readouterr().out
    assert script("validate.py", *of_weights, "--mean", "0", "0", "0") == 0
    assert capfd.readouterr().out.split("loss: ")[1][:6] != usual.split("loss: ")[1][:6]


def test_train_starts_from_published_weights_and_warns_of_other_preprocessing(three_classes, script, capfd):
    argv = ["--model", ATTO, "--pretrained", "True", "--data_dir", three_classes, "--mode", "1", "--epoch_size", "1"]
    argv += ["--batch_size", "3", "--warmup_epochs", "0", "--image_resize", "32", "--ckpt_save_dir", "run"]
    argv += ["--std", "127.5", "127.495", "127.505"]  # rounded otherwise, which is not worth a line
    assert script("train.py", *argv, "--interpolation", "bilinear", "--crop_pct", "1", "--val_while_train", "True") == 0
    told = capfd.readouterr().err
    assert f"{ATTO}: these weights were published for other images: mean [127.5, 127.5, 127.5] (here [123.675" in told
    assert "crop_pct" not in told and "std" not in told and told.count("these weights") == 1
    (path,) = Path("run").glob("convnext_atto-1_3.ckpt")
    assert read_ckpt(path)[1]["options"]["model"] == "convnext_atto"
    assert script("validate.py", "--ckpt_path", path, "--data_dir", three_classes, "--mode", "1") == 0

    (three_classes / "train" / "c").rename(three_classes / "c")
    assert script("train.py", *argv, "--lr", "0.1", "--overwrite", "True") == 0
    assert (
        "the head of 3 classes is left out; the model's head of 2 classes starts from random values and needs training"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(
    "script_name, argv, status, message",
    [
        ("train.py", ["--model", "convnextv2_tiny.fcma", "--pretrained"], 2, "model: tag of convnextv2_tiny's"),
        ("train.py", ["--model", "convnextv2_small", "--pretrained"], 2, "model: there are no published weights of"),
        ("train.py", ["--model", "convnext_tiny.tv_in1k"], 2, "give pretrained: True, or 'convnext_tiny' alone"),
        (
            "validate.py",
            ["--model", "convnextv2_tiny.fcmae", "--pretrained"],
            1,
            "convnextv2_tiny.fcmae has no classifier",
        ),
        ("validate.py", ["--pretrained"], 2, "model: is required"),
        (
            "infer.py",
            ["--model", "convnextv2_tiny", "--pretrained", "--image_path", "x"],
            1,
            "image 'x' does not exist",
        ),
        ("infer.py", ["--model", "convnextv2_tiny", "--pretrained", "--image_path", "0.png"], 1, "server answers 404"),
    ],
)
def test_scripts_report_a_wrong_pretrained_option_in_one_line(
    hub, script, tmp_path, monkeypatch, capfd, script_name, argv, status, message
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("0.png")
    assert script(script_name, *argv) == status
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


@pytest.mark.parametrize("name", SHARES)
def test_statistics_of_pixels_are_readable_and_have_the_float32_bits_of_the_published_shares(name):
    found = pretrained_weights(name).preprocessing
    for values, shares in zip((found.mean, found.std), SHARES[name]):
        assert all(len(repr(value)) <= 12 for value in values)
        np.testing.assert_array_equal(np.float32(values), np.float32([share * 255 for share in shares]))
