"""The tutorial's program in Keras on TensorFlow: python mnist_keras.py FOLDER EPOCHS SEED."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

#: Bytes of the header of an IDX file, by the number of dimensions.
HEADERS = {1: 8, 3: 16}


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Return the bytes of one of MNIST's files, images as (N, 28, 28)."""
    values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=HEADERS[dims])
    return values.reshape(-1, 28, 28) if dims == 3 else values


def load(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images scaled to 1, and labels."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    return images.astype(np.float32) / 255, read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1).astype(np.int32)


def main(folder: str, epochs: str, seed: str) -> None:
    """Train, test, and print the accuracy as JSON."""
    threads = int(os.environ["BENCHMARK_THREADS"])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.utils.set_random_seed(int(seed))
    x, y = load(Path(folder), "train")
    model = keras.Sequential(
        [keras.Input((28, 28)), keras.layers.GRU(64), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=True)
    model.fit(x, y, epochs=int(epochs), batch_size=32, verbose=0)
    _, accuracy = model.evaluate(*load(Path(folder), "t10k"), batch_size=128, verbose=0)
    print(json.dumps({"accuracy": float(accuracy)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
