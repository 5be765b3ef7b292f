"""Serve a file of `tools/export.py --with_preprocess True` over HTTP, without MindSpore and without this library.

`POST /classify` takes the bytes of an image file as its body, and `GET /model` describes the model.
"""

from __future__ import annotations

import argparse
import io
import json

try:
    import anyio
    import numpy as np
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as missing:
    raise SystemExit(f"error: {missing}; run pip install fastapi uvicorn onnxruntime pillow") from None


class Classifier:
    """An exported classifier that takes pixels."""

    def __init__(self, path: str):
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises errors of many types
            raise SystemExit(f"error: '{path}' cannot be opened as an ONNX file: {error}") from None
        properties = self.session.get_modelmeta().custom_metadata_map
        self.output = properties.get("output")
        if properties.get("takes_pixels") != "true" or self.output not in ("logits", "probabilities"):
            raise SystemExit(f"error: '{path}' must be a classifier that was exported with --with_preprocess True")
        self.model, self.class_names = properties["model"], json.loads(properties["class_names"])

    def classify(self, encoded: bytes, top_k: int) -> list[dict[str, object]]:
        """Return the most probable classes of an image file."""
        (outputs,) = self.session.run(None, {"images": read_pixels(encoded)[None]})
        exponentials = np.exp(outputs[0] - outputs[0].max())
        shares = outputs[0] if self.output == "probabilities" else exponentials / exponentials.sum()
        names = self.class_names or [str(index) for index in range(len(shares))]
        top = np.argsort(-shares, kind="stable")[:top_k]
        return [{"class": int(i), "name": names[i], "probability": float(shares[i])} for i in top]


def read_pixels(encoded: bytes) -> np.ndarray:
    """Return the pixels, uint8 [H, W, 3], upright. Values of more than 8 bits are scaled down as infer.py does it."""
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode[0] in "IF":  # Pillow's convert would clip the values
            values = np.maximum(np.asarray(image), 0)
            largest, is_16_bit = values.max(), image.mode.startswith("I;16") or encoded[1:4] == b"PNG"
            if image.mode == "F" and not largest <= 65535:
                raise ValueError("the range of its values is not known")
            if image.mode == "F" and largest <= 1:
                values = np.rint(values * 255)
            elif is_16_bit or largest > 255:
                values = values // (256 if is_16_bit or largest <= 65535 else 2**23)
            image = Image.fromarray(values.astype(np.uint8))
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises errors of many types for damaged files
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise HTTPException(422, f"the body is not a readable image: {reason}") from None


def create_app(classifier: Classifier, max_bytes: int = 20_000_000, top_k: int = 5) -> FastAPI:
    """Create the application. It classifies one image at a time, because one call of the model uses all cores."""
    app, one_at_a_time = FastAPI(title="mindcv"), anyio.CapacityLimiter(1)

    @app.get("/model")
    async def model() -> dict[str, object]:
        return {"model": classifier.model, "class_names": classifier.class_names}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(422, "the body is a form: send the bytes of the image file instead")
        body = bytearray()
        async for part in request.stream():  # the declared length of a body can be wrong
            body += part
            if len(body) > max_bytes:
                raise HTTPException(413, f"the body has more than {max_bytes} bytes")
        if not body:
            raise HTTPException(422, "the body is empty: send the bytes of an image file")
        found = await anyio.to_thread.run_sync(classifier.classify, bytes(body), top_k, limiter=one_at_a_time)
        return {"predictions": found}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve an exported classifier over HTTP.")
    parser.add_argument("model", help="ONNX file of tools/export.py with --with_preprocess True")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    given = parser.parse_args()
    uvicorn.run(create_app(Classifier(given.model)), host=given.host, port=given.port)
