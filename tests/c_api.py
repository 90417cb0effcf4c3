"""TensorFlow's C API by ctypes: what its Go binding calls, and so what a server in Go calls."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 9  # of enum TF_DataType

Pointer = ctypes.c_void_p


class Output(ctypes.Structure):
    _fields_ = [("operation", Pointer), ("index", ctypes.c_int)]


def library_folder() -> Path:
    """Where TensorFlow is installed: its libraries, and its headers in `include`."""
    spec = find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


class Graph:
    """A SavedModel loaded with `TF_LoadSessionFromSavedModel`."""

    def __init__(self, folder: Path, tag: str) -> None:
        # The C API is in this library; it finds the other beside it.
        self._tf = ctypes.CDLL(str(library_folder() / "libtensorflow_cc.so.2"))
        for name in (
            "TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel",
            "TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData",
        ):  # fmt: skip
            getattr(self._tf, name).restype = Pointer
        self._tf.TF_Message.restype = ctypes.c_char_p
        self._tf.TF_Dim.restype = ctypes.c_int64
        self._status = Pointer(self._tf.TF_NewStatus())
        self._graph = Pointer(self._tf.TF_NewGraph())
        self._session = Pointer(
            self._tf.TF_LoadSessionFromSavedModel(
                Pointer(self._tf.TF_NewSessionOptions()),
                None,
                str(folder).encode(),
                (ctypes.c_char_p * 1)(tag.encode()),
                1,
                self._graph,
                None,
                self._status,
            )
        )
        self._check()

    def run(self, operation: str, pixels: np.ndarray, answer: str) -> np.ndarray:
        """Feed float32 (N, M) to one operation; fetch int64 (N,) from another."""
        pixels = np.ascontiguousarray(pixels, np.float32)
        dimensions = (ctypes.c_int64 * 2)(*pixels.shape)
        size = ctypes.c_size_t(pixels.nbytes)
        tensor = Pointer(self._tf.TF_AllocateTensor(FLOAT, dimensions, 2, size))
        ctypes.memmove(self._tf.TF_TensorData(tensor), pixels.ctypes.data, pixels.nbytes)
        fetched = (Pointer * 1)()
        self._tf.TF_SessionRun(
            self._session, None,
            (Output * 1)(self._output(operation)), (Pointer * 1)(tensor), 1,
            (Output * 1)(self._output(answer)), fetched, 1,
            None, 0, None, self._status,
        )  # fmt: skip
        self._check()
        result = Pointer(fetched[0])
        assert self._tf.TF_TensorType(result) == INT64
        count = self._tf.TF_Dim(result, 0)
        data = ctypes.cast(self._tf.TF_TensorData(result), ctypes.POINTER(ctypes.c_int64))
        labels = np.ctypeslib.as_array(data, (count,)).copy()
        for used in (tensor, result):
            self._tf.TF_DeleteTensor(used)
        return labels

    def _output(self, operation: str) -> Output:
        found = self._tf.TF_GraphOperationByName(self._graph, operation.encode())
        assert found, f"the graph has no operation {operation}"
        return Output(found, 0)

    def _check(self) -> None:
        assert self._tf.TF_GetCode(self._status) == 0, self._tf.TF_Message(self._status).decode()
