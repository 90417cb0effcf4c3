"""The network behind other Python servers, each as its own documentation would have it written.

    gunicorn -w 2 -k sync 'tests.benchmarks.peers:flask_litert()'
    granian --interface wsgi --workers 2 --factory tests.benchmarks.peers:flask_litert
    uvicorn --workers 2 --factory tests.benchmarks.peers:fastapi_tensorflow
    python -m tests.benchmarks.peers litert 8000      # LitServe

All answer `POST /recognize`, a form with one 28 x 28 PNG in the field `image`, and check nothing.
Every worker loads the network for itself and computes with one thread, as the service does.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

Network = Callable[[Any], list[int]]  # an open PNG file to its labels


def flask_app(load: Callable[[], Network]) -> Any:
    from flask import Flask, Response, jsonify, request

    app = Flask(__name__)
    network = load()

    @app.post("/recognize")
    def recognize() -> Response:
        file = request.files["image"]
        return jsonify(filename=file.filename, labels=network(file))

    return app


def fastapi_app(load: Callable[[], Network]) -> Any:
    from fastapi import FastAPI, UploadFile

    app = FastAPI()
    network = load()

    @app.post("/recognize")
    async def recognize(image: UploadFile) -> dict[str, Any]:
        # On the event loop: a plain function, which gets a thread, was slower.
        return {"filename": image.filename, "labels": network(image.file)}

    return app


def litserve_api(load: Callable[[], Network]) -> Any:
    from litserve import LitAPI

    class Recognize(LitAPI):
        def setup(self, device: str) -> None:
            self.network = load()

        def predict(self, form: Any) -> dict[str, Any]:
            return {"filename": form["image"].filename, "labels": self.network(form["image"].file)}

        def __reduce__(self) -> Any:
            # A class made in a function has no name to be found by, so the worker makes it again.
            return litserve_api, (load,), self.__dict__

    return Recognize(api_path="/recognize")


def load_tensorflow() -> Network:
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    import tensorflow as tf

    model = tf.saved_model.load("data/model")

    def network(file: Any) -> list[int]:
        pixels = np.asarray(Image.open(file))
        # A signature is a concrete function, the cheapest call; the model owns its variables.
        call = model.signatures["serving_default"]
        answer = call(image=tf.constant(pixels[np.newaxis]))
        return answer["label"].numpy().tolist()

    return network


def load_litert() -> Network:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter("data/model/assets.extra/model.tflite", num_threads=1)
    call = interpreter.get_signature_runner("serving_default")

    def network(file: Any) -> list[int]:
        pixels = np.asarray(Image.open(file))
        return call(image=pixels[np.newaxis])["label"].tolist()

    return network


LOADERS = {"litert": load_litert, "tensorflow": load_tensorflow}

# Servers take the name of a function without arguments.
flask_litert = partial(flask_app, load_litert)
flask_tensorflow = partial(flask_app, load_tensorflow)
fastapi_litert = partial(fastapi_app, load_litert)
fastapi_tensorflow = partial(fastapi_app, load_tensorflow)

if __name__ == "__main__":
    from litserve import LitServer

    api = litserve_api(LOADERS[sys.argv[1]])
    server = LitServer(api, accelerator="cpu")
    server.run("127.0.0.1", int(sys.argv[2]), log_level="warning", generate_client_file=False)
