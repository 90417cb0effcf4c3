"""Serve the network with other Python servers, each in the style of its own documentation.

    gunicorn -w 2 -k sync 'tests.benchmarks.peers:flask_litert()'
    granian --interface wsgi --workers 2 --factory tests.benchmarks.peers:flask_litert
    uvicorn --workers 2 --factory tests.benchmarks.peers:fastapi_tensorflow
    python -m tests.benchmarks.peers litert 8000      # LitServe

All of them answer `POST /recognize`, a form with one 28 x 28 PNG in the field `image`, without any
validation. Every worker loads its own network and computes with one thread, as the service does.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

Network = Callable[[Any], list[int]]  # recognizes an open PNG file


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
        # A coroutine runs on the event loop. A plain function runs in a thread, which was slower.
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
            # pickle cannot find a class that a function defines, so the worker defines it again.
            return litserve_api, (load,), self.__dict__

    return Recognize(api_path="/recognize")


def load_tensorflow() -> Network:
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    import tensorflow as tf

    model = tf.saved_model.load("data/model")

    def network(file: Any) -> list[int]:
        pixels = np.asarray(Image.open(file))
        # A signature is a concrete function, which has the least overhead. Look it up through the
        # model, which keeps the variables alive.
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

# The servers need names of functions without arguments.
flask_litert = partial(flask_app, load_litert)
flask_tensorflow = partial(flask_app, load_tensorflow)
fastapi_litert = partial(fastapi_app, load_litert)
fastapi_tensorflow = partial(fastapi_app, load_tensorflow)

if __name__ == "__main__":
    from litserve import LitServer

    api = litserve_api(LOADERS[sys.argv[1]])
    server = LitServer(api, accelerator="cpu")
    server.run("127.0.0.1", int(sys.argv[2]), log_level="warning", generate_client_file=False)
