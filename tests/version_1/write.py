"""Write the files of this folder. They come from commit f862d69, the last one that divided uint8 input by 255.

Run in this folder with the package built from that commit: ``python write.py``.
"""

import fastgru
import numpy as np
from fastgru import Sequential, callbacks, layers, optimizers

STEPS, FEATURES = 4, 2


def make(seed, *first, reset_after=True, recurrent_activation="sigmoid", **options):
    """A classifier of sequences, with the layers `first` in front."""
    fastgru.set_seed(seed)
    shape = {} if first else {"input_shape": (STEPS, FEATURES)}
    gru = layers.GRU(3, reset_after=reset_after, recurrent_activation=recurrent_activation, **shape)
    model = Sequential([*first, gru, layers.Dense(2, activation="softmax")], **options)
    model.compile(optimizers.Adam(0.01, form="tfjs"), "categorical_crossentropy", ["accuracy"])
    return model


def main():
    """Write models, and what they predict for bytes and for numbers."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, STEPS, FEATURES), dtype=np.uint8)
    x[:3, 2:] = 0  # padding for Masking
    y = np.array([0, 1, 0, 1, 1, 0])
    floats = rng.normal(size=x.shape).astype(np.float32)
    floats[:3, 2:] = 0
    tokens = rng.integers(0, 7, (6, STEPS)).astype(np.uint8)
    found = {"x": x, "floats": floats, "tokens": tokens, "y": y}
    models = {
        "gru": make(1),
        "double": make(2, dtype="float64"),
        "masking": make(3, layers.Masking(input_shape=(STEPS, FEATURES))),
        "tfjs": make(5, reset_after=False, recurrent_activation="hard_sigmoid_tfjs"),
    }
    for name, model in models.items():
        model.fit(x, y, batch_size=2, epochs=2, verbose=0)
        found[f"{name}_bytes"] = model.predict(x)
        found[f"{name}_floats"] = model.predict(floats)
    models["embedding"] = make(4, layers.Embedding(7, 2, input_shape=(STEPS,)))
    found["embedding_tokens"] = models["embedding"].predict(tokens)
    for name in ("gru", "double", "masking", "embedding"):
        models[name].save(f"{name}.safetensors")
    models["gru"].save("gru.onnx", include_optimizer=False)
    models["gru"].save("gru.pt", include_optimizer=False)
    models["tfjs"].save("tfjs.json")
    for name, samples in (("bytes", x), ("floats", floats)):
        model = make(6)
        checkpoint = callbacks.ModelCheckpoint(f"training_{name}_{{epoch}}.safetensors")
        model.fit(samples, y, batch_size=2, epochs=1, verbose=0, callbacks=[checkpoint])
        model = make(6)
        model.fit(samples, y, batch_size=2, epochs=3, verbose=0, callbacks=[])
        found[f"training_{name}"] = model.predict(samples)
    np.savez_compressed("expected.npz", **found)


if __name__ == "__main__":
    main()
