"""The example server classifies images that are posted over loopback, and refuses what is not an image."""

import importlib.util
import io
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from plain_network import build

from mindcv.data import Compose, create_transforms
from mindcv.engine.inference import classify
from mindcv.export import write_onnx

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
    spec = importlib.util.spec_from_file_location("server", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def post(address, body):
    """Return the status and the answer."""
    request = urllib.request.Request(f"{address}/classify", data=body, method="POST")
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


@pytest.mark.parametrize("body", [b"", b"no image", b"{}", jpeg(1, (60, 50))[:200]])
def test_server_refuses_a_body_that_is_not_a_readable_image(address, body):
    status, answer = post(address, body)
    assert status == 422 and answer["detail"].startswith("the body is not a readable image: ")


def test_server_refuses_a_body_that_is_too_large_and_goes_on(address, images):
    assert post(address, bytes(MAX_BYTES + 1)) == (413, {"detail": f"the body has more than {MAX_BYTES} bytes"})
    assert post(address, images[0])[0] == 200


def test_server_describes_its_model(address):
    with urllib.request.urlopen(f"{address}/model", timeout=60) as answer:
        assert json.load(answer) == {"model": "small", "class_names": list(NAMES)}


def test_server_refuses_a_file_without_preprocessing(server_module, network, tmp_path):
    write_onnx(network, tmp_path / "model.onnx")
    with pytest.raises(SystemExit, match="must be exported with --with_preprocess True"):
        server_module.Classifier(str(tmp_path / "model.onnx"))
