"""TensorFlow's C API through ctypes, with the functions that TensorFlow's Go binding calls."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 9  # values of the enum TF_DataType

Pointer = ctypes.c_void_p


class Output(ctypes.Structure):
    """The struct TF_Output."""

    _fields_ = [("operation", Pointer), ("index", ctypes.c_int)]


def library_folder() -> Path:
    """Return TensorFlow's folder, which contains its libraries and, in `include`, its headers."""
    spec = find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


class Graph:
    """A SavedModel loaded with `TF_LoadSessionFromSavedModel`."""

    def __init__(self, folder: Path, tag: str) -> None:
        # This library contains the C API; it loads libtensorflow_framework from its own folder.
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

    def run(self, operation: str, pixels: np.ndarray, result: str) -> np.ndarray:
        """Feed a tensor to one operation, and fetch the result of another.

        Args:
            operation: The name of the operation to feed.
            pixels: float32 (N, M).
            result: The name of the operation to fetch.

        Returns:
            int64 (N,).
        """
        pixels = np.ascontiguousarray(pixels, np.float32)
        dimensions = (ctypes.c_int64 * 2)(*pixels.shape)
        size = ctypes.c_size_t(pixels.nbytes)
        tensor = Pointer(self._tf.TF_AllocateTensor(FLOAT, dimensions, 2, size))
        ctypes.memmove(self._tf.TF_TensorData(tensor), pixels.ctypes.data, pixels.nbytes)
        outputs = (Pointer * 1)()
        self._tf.TF_SessionRun(
            self._session, None,
            (Output * 1)(self._output(operation)), (Pointer * 1)(tensor), 1,
            (Output * 1)(self._output(result)), outputs, 1,
            None, 0, None, self._status,
        )  # fmt: skip
        self._check()
        fetched = Pointer(outputs[0])
        assert self._tf.TF_TensorType(fetched) == INT64
        count = self._tf.TF_Dim(fetched, 0)
        data = ctypes.cast(self._tf.TF_TensorData(fetched), ctypes.POINTER(ctypes.c_int64))
        labels = np.ctypeslib.as_array(data, (count,)).copy()
        for allocated in (tensor, fetched):
            self._tf.TF_DeleteTensor(allocated)
        return labels

    def _output(self, operation: str) -> Output:
        pointer = self._tf.TF_GraphOperationByName(self._graph, operation.encode())
        assert pointer, f"the graph has no operation {operation}"
        return Output(pointer, 0)

    def _check(self) -> None:
        assert self._tf.TF_GetCode(self._status) == 0, self._tf.TF_Message(self._status).decode()
