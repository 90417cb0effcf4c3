"""The network behind other servers, each as its own documentation would have it written.

    gunicorn -w 2 -k sync 'tests.benchmarks.peers:flask_app()'
    uvicorn --workers 2 --factory tests.benchmarks.peers:fastapi_app
    python -m tests.benchmarks.peers 8000      # LitServe

All answer `POST /recognize`, a form with one 28 x 28 PNG in the field `image`, and check nothing.
Every worker loads TensorFlow for itself, with one thread, as the service does.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Network = Callable[[Any], list[int]]  # an open PNG file to its labels


def flask_app() -> Any:
    from flask import Flask, Response, jsonify, request

    app = Flask(__name__)
    network = _load()

    @app.post("/recognize")
    def recognize() -> Response:
        file = request.files["image"]
        return jsonify(filename=file.filename, labels=network(file))

    return app


def fastapi_app() -> Any:
    from fastapi import FastAPI, UploadFile

    app = FastAPI()
    network = _load()

    @app.post("/recognize")
    async def recognize(image: UploadFile) -> dict[str, Any]:
        # On the event loop: a plain function, which gets a thread, was slower.
        return {"filename": image.filename, "labels": network(image.file)}

    return app


def litserve_api() -> Any:
    from litserve import LitAPI

    class Recognize(LitAPI):
        def setup(self, device: str) -> None:
            self.network = _load()

        def predict(self, form: Any) -> dict[str, Any]:
            return {"filename": form["image"].filename, "labels": self.network(form["image"].file)}

        def __reduce__(self) -> Any:
            # A class made in a function has no name to be found by, so the worker makes it again.
            return litserve_api, (), self.__dict__

    return Recognize(api_path="/recognize")


def _load() -> Network:
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    from service.quiet import tf

    model = tf.saved_model.load("data/model")

    def network(file: Any) -> list[int]:
        pixels = np.asarray(Image.open(file))
        # A signature is a concrete function, the cheapest call; the model owns its variables.
        call = model.signatures["serving_default"]
        answer = call(image=tf.constant(pixels[np.newaxis]))
        return answer["label"].numpy().tolist()

    return network


if __name__ == "__main__":
    from litserve import LitServer

    server = LitServer(litserve_api(), accelerator="cpu")
    server.run("127.0.0.1", int(sys.argv[1]), log_level="warning", generate_client_file=False)
