"""The example server classifies images that are posted over loopback, and refuses what is not an image."""

import io
import json
import runpy
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from example_script import load
from PIL import Image
from plain_network import build

from mindcv.data import Compose, create_transforms, decode
from mindcv.engine.inference import classify
from mindcv.export import write_onnx
from mindcv.models import ConvNeXtFeatures

SOURCE = Path(__file__).parents[2] / "examples" / "serve" / "server.py"
NAMES = ("ant", "bee", "Kätzchen", "dog", "elk")
PREPROCESSING = {
    "image_resize": 48,
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": [120.0, 110.0, 100.0],
    "std": [60.0, 55.0, 50.0],
    "in_channels": 3,
}
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def server_module():
    return load("serve/server.py")


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture(scope="module")
def address(server_module, network, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "model.onnx"
    write_onnx(network, path, model="small", class_names=NAMES, preprocessing=PREPROCESSING, with_preprocess=True)
    app = server_module.create_app(server_module.Classifier(str(path)), MAX_BYTES, top_k=3)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def jpeg(seed, size, orientation=1):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    small.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


def post(address, body, headers=None):
    """Return the status and the answer."""
    request = urllib.request.Request(f"{address}/classify", data=body, headers=headers or {}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def images():
    """JPEG files of odd sizes; one of them has an orientation in its EXIF data."""
    return [jpeg(seed, (40 + 7 * seed, 90 - 3 * seed), orientation=6 if seed == 3 else 1) for seed in range(10)]


@pytest.fixture(scope="module")
def expected(network, images, tmp_path_factory):
    """What `infer.py` predicts for the images."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images):
        path.write_bytes(image)
    transform = Compose(create_transforms(is_training=False, **PREPROCESSING))
    return list(classify(network, [str(path) for path in paths], transform, NAMES, 3, 1))


def test_server_gives_the_predictions_of_infer_to_50_clients_at_once(address, images, expected):
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda number: post(address, images[number % 10]), range(50)))
    assert len({prediction.names for prediction in expected}) > 1
    for number, (status, answer) in enumerate(answers):
        prediction, found = expected[number % 10], answer["predictions"]
        assert status == 200
        assert [entry["name"] for entry in found] == list(prediction.names)
        assert [entry["class"] for entry in found] == list(prediction.indices)
        np.testing.assert_allclose([entry["probability"] for entry in found], prediction.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"", {}, "the body is empty: send the bytes of an image file"),
        (b"no image", {}, "the body is not a readable image: its format is not known"),
        (jpeg(1, (60, 50))[:200], {}, "the body is not a readable image: "),
        (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, "the body is a form: send the bytes of the im"),
    ],
)
def test_server_refuses_a_body_that_is_not_a_readable_image(address, body, headers, message):
    status, answer = post(address, body, headers)
    assert status == 422 and answer["detail"].startswith(message) and "0x" not in answer["detail"]


def test_server_reads_the_pixels_that_infer_reads(server_module):
    """Values of more than 8 bits are scaled and not clipped, whatever the format states about them."""
    rng = np.random.default_rng(3)
    deep = rng.integers(0, 65536, (6, 9))
    images = [
        ("PNG", deep.astype(np.uint16)),
        ("PNG", (deep // 256).astype(np.uint16)),  # a dark 16-bit image
        ("TIFF", deep.astype(np.uint16)),
        *(("TIFF", (deep // divisor * factor).astype(np.int32)) for divisor, factor in ((1, 1), (256, 1), (1, 2**15))),
        *(("TIFF", (deep / divisor - 0.01).astype(np.float32)) for divisor in (65536, 256, 1)),
        ("PNG", rng.integers(0, 256, (6, 9, 4), dtype=np.uint8)),
    ]
    for file_format, pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, file_format)
        expected = np.asarray(decode(file.getvalue()))
        np.testing.assert_array_equal(server_module.read_pixels(file.getvalue()), expected, str(pixels.dtype))
    for wrong in (np.nan, 1e9):
        file = io.BytesIO()
        Image.fromarray(np.full((2, 3), wrong, np.float32)).save(file, "TIFF")
        with pytest.raises(server_module.HTTPException) as error:
            server_module.read_pixels(file.getvalue())
        assert error.value.detail.endswith("the range of its values is not known")


def test_server_refuses_a_body_that_is_too_large_and_goes_on(address, images):
    assert post(address, bytes(MAX_BYTES + 1)) == (413, {"detail": f"the body has more than {MAX_BYTES} bytes"})
    assert post(address, images[0])[0] == 200


def test_server_describes_its_model(address):
    with urllib.request.urlopen(f"{address}/model", timeout=60) as answer:
        assert json.load(answer) == {"model": "small", "class_names": list(NAMES)}


def test_server_refuses_a_file_that_is_no_classifier_of_pixels(server_module, network, tmp_path):
    pixels = {"preprocessing": PREPROCESSING, "with_preprocess": True}
    write_onnx(network, tmp_path / "plain.onnx")
    write_onnx(ConvNeXtFeatures(network), tmp_path / "maps.onnx", **pixels)
    for name in ("plain.onnx", "maps.onnx"):
        with pytest.raises(SystemExit, match="must be a classifier that was exported with --with_preprocess True"):
            server_module.Classifier(str(tmp_path / name))
    (tmp_path / "text.onnx").write_text("something else")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(SystemExit, match=f"error: '.*{name}' cannot be opened as an ONNX file: .*{name}"):
            server_module.Classifier(str(tmp_path / name))


def test_server_names_its_packages_when_one_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match="uvicorn.*; run pip install fastapi uvicorn onnxruntime pillow"):
        runpy.run_path(str(SOURCE))


def test_server_is_short_and_needs_no_mindspore():
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    assert not [line for line in lines if "import" in line and ("mindcv" in line or "mindspore" in line)]
