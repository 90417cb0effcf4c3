import keras
import numpy as np
import tensorflow as tf

from stages.common import checkpoint


def test_restore_needs_the_same_key_and_an_undamaged_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same, other = np.arange(4), np.arange(4) + 1
    strategy = tf.distribute.get_strategy()
    checkpoint.save(same, [keras.Variable([1.0, 2.0])], [{"train/loss": 0.1}])
    variable = keras.Variable([0.0, 0.0])
    assert checkpoint.restore(other, [variable], strategy) == (0, [])
    assert variable.numpy().tolist() == [0.0, 0.0]
    assert checkpoint.restore(same, [variable], strategy) == (1, [{"train/loss": 0.1}])
    assert variable.numpy().tolist() == [1.0, 2.0]
    content = checkpoint.FILE.read_bytes()
    changed = content.replace(np.float32(2).tobytes(), np.float32(3).tobytes())
    for damaged in (content[:-100], content[: len(content) // 2], b"", changed):
        checkpoint.FILE.write_bytes(damaged)
        assert checkpoint.restore(same, [variable], strategy) == (0, [])
    checkpoint.remove()
    assert checkpoint.restore(same, [variable], strategy) == (0, [])
