"""Serve an exported classifier over HTTP: `python examples/serve/server.py model.onnx`.

The model is a file of `tools/export.py --format onnx --with_preprocess True`, so the server needs neither MindSpore nor
this library: `pip install fastapi uvicorn onnxruntime pillow`. `POST /classify` takes the bytes of an image file as its
body, and `GET /model` describes the model.
"""

from __future__ import annotations

import argparse
import io
import json

import anyio
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image, ImageOps

__all__ = ["Classifier", "create_app"]


class Classifier:
    """An exported classifier that takes pixels."""

    def __init__(self, path: str):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        properties = self.session.get_modelmeta().custom_metadata_map
        if properties.get("takes_pixels") != "true":
            raise SystemExit(f"error: '{path}' must be exported with --with_preprocess True")
        self.model, self.output = properties["model"], properties["output"]
        self.class_names = json.loads(properties["class_names"])

    def classify(self, encoded: bytes, top_k: int) -> list[dict[str, object]]:
        """Return the most probable classes of an image file.

        Raises:
            ValueError: the bytes are not a readable image.
        """
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except Exception as error:  # Pillow raises errors of many types for damaged files
            raise ValueError(f"the body is not a readable image: {error}") from error
        (outputs,) = self.session.run(None, {"images": pixels[None]})
        probabilities = outputs[0] if self.output == "probabilities" else softmax(outputs[0])
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        names = self.class_names or [str(index) for index in range(len(probabilities))]
        return [
            {"class": int(index), "name": names[index], "probability": float(probabilities[index])} for index in order
        ]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def create_app(classifier: Classifier, max_bytes: int = 20_000_000, top_k: int = 5) -> FastAPI:
    """Create the application.

    One image is classified at a time, because one call of the model uses all cores. Further requests wait.
    """
    app = FastAPI(title="mindcv")
    one_at_a_time = anyio.CapacityLimiter(1)

    @app.get("/model")
    async def model() -> dict[str, object]:
        return {"model": classifier.model, "class_names": classifier.class_names}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        body = bytearray()
        async for part in request.stream():  # the declared length of a body can be wrong
            body += part
            if len(body) > max_bytes:
                raise HTTPException(413, f"the body has more than {max_bytes} bytes")
        try:
            found = await anyio.to_thread.run_sync(classifier.classify, bytes(body), top_k, limiter=one_at_a_time)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return {"predictions": found}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve an exported classifier over HTTP.")
    parser.add_argument("model", help="ONNX file of tools/export.py with --with_preprocess True")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    given = parser.parse_args()
    uvicorn.run(create_app(Classifier(given.model)), host=given.host, port=given.port)
