"""A language model of characters: it learns to write documentation from that of Python's own standard library.

The text is on every machine that has Python: the docstrings of the library's modules, about a tenth of which are kept
for the test. Two GRUs, one on top of the other, say for each character how likely each next one is. They are measured
in bits per character against the honest baseline: counts of what followed the last few characters.

    python text.py --temperature 0.7
"""

import argparse
import ast
import pathlib
import sys
import zlib

import numpy as np
from fastgru import Sequential, layers, optimizers, schedules, set_seed

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))  # all others are left out
STEPS = 128


def read_docstrings(modules):
    """The docstrings of Python files as one array of tokens (T,), each the index of its character."""
    nodes = (node for path in modules for node in ast.walk(ast.parse(path.read_bytes())))
    texts = [ast.get_docstring(node) for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    index = {character: i for i, character in enumerate(CHARACTERS)}
    return np.array([index[c] for c in "\n\n".join(filter(None, texts)) if c in index])


def ngram_bits(train, test, order):
    """Bits per character of `test` for counts in `train` of up to `order` characters in a row.

    Witten and Bell's smoothing (1991): where a context was seen c times, with d different characters after it, the
    next shorter context's probability enters with the weight d / (c + d).
    """
    size = len(CHARACTERS)
    probability = np.full(len(test), 1 / size)
    for n in range(1, order + 1):
        # Each n characters in a row as one number, and their context: the same without the last one.
        grams, asked = (
            sum(tokens[i : len(tokens) - n + 1 + i] * size ** (n - 1 - i) for i in range(n)) for tokens in (train, test)
        )
        distinct, counts = np.unique(grams, return_counts=True)
        count = look_up(distinct, counts, asked)
        seen = look_up(*np.unique(grams // size, return_counts=True), asked // size)
        different = look_up(*np.unique(distinct // size, return_counts=True), asked // size)
        shorter = probability[n - 1 :]
        probability[n - 1 :] = np.where(seen, (count + different * shorter) / np.maximum(seen + different, 1), shorter)
    return float(-np.log2(probability).mean())


def look_up(keys, values, asked):
    """The value of each key asked for, 0 where there is none; `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def make_layers(units, *, stateful=False):
    """The model's layers; `stateful` ones go on where the call before ended."""
    return [
        layers.Embedding(len(CHARACTERS), 32, input_shape=(None,)),
        layers.GRU(units, return_sequences=True, stateful=stateful),
        layers.GRU(units, return_sequences=True, stateful=stateful),
        layers.Dense(len(CHARACTERS), activation="softmax"),
    ]


def write(model, begin, length, temperature, rng):
    """Go on with the text `begin` for `length` characters, drawn as the stateful `model` says."""
    model.reset_states()
    text, tokens = begin, [CHARACTERS.index(character) for character in begin]
    for _ in range(length):
        probabilities = model.predict(np.array([tokens]))[0, -1].astype("float64") ** (1 / temperature)
        tokens = [rng.choice(len(CHARACTERS), p=probabilities / probabilities.sum())]  # the states know all before
        text += CHARACTERS[tokens[0]]
    return text


def main():
    """Train, compare, and say whether it was worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7, help="below 1 the text is safer, above it is wilder")
    parser.add_argument("--plot", nargs="?", const="text.png", metavar="FILE", help="draw the training into FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    units, epochs, batch_size = (64, 6, 8) if options.quick else (192, 10, 32)

    library = sorted(pathlib.Path(ast.__file__).parent.glob("*.py"))
    kept = [path for path in library if zlib.crc32(path.stem.encode()) % 10 == 0]  # whole modules, not parts of them
    if not kept:
        sys.exit("text.py: this Python comes without the source files of its standard library")
    train = read_docstrings(path for path in library if path not in kept)
    test = read_docstrings(kept)
    if options.quick:
        train, test = train[:100_000], test[:10_000]
    # Windows in, the same one character later out; what is left over is dropped.
    count = (len(train) - 1) // STEPS
    x, y = (train[shift : shift + count * STEPS].reshape(count, STEPS) for shift in (0, 1))
    print(f"{len(train):,} characters to train on, {len(test):,} to test, from {', '.join(p.stem for p in kept)}")

    model = Sequential(make_layers(units))
    updates = epochs * -(-count // batch_size)
    rate = schedules.CosineDecay(0.0, updates, warmup_target=4e-3, warmup_steps=updates // 20)
    model.compile(
        optimizer=optimizers.Adam(rate, global_clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # The test text is a single sequence, read from its first character to its last; no epoch is chosen by it.
    history = model.fit(
        x, y, epochs=epochs, batch_size=batch_size, validation_data=(test[None, :-1], test[None, 1:]), verbose=2
    )
    bits = history.history["val_loss"][-1] / np.log(2)

    writer = Sequential(make_layers(units, stateful=True))
    writer.set_weights(model.get_weights())
    print(f"\nIt writes, at temperature {options.temperature:g}:\n")
    print(write(writer, "Return ", 100 if options.quick else 500, options.temperature, np.random.default_rng(0)))

    baselines = {n: ngram_bits(train, test, n) for n in range(1, 6)}
    if options.plot:
        plot(options.plot, history, baselines)
    described = ", ".join(f"{n} {value:.2f}" for n, value in baselines.items())
    print(f"\nResult: test text {bits:.2f} bits per character; counts of n characters in a row: {described}")
    return 0 if bits < (baselines[2] if options.quick else min(baselines.values())) else 1


def plot(path, history, baselines):
    """Draw bits per character by epoch, and what counting reaches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = np.array(history.epoch) + 1
    for key, label in (("loss", "training"), ("val_loss", "test")):
        axes.plot(epochs, np.array(history.history[key]) / np.log(2), marker="o", label=label)
    for n, value in baselines.items():
        axes.axhline(value, color="grey", linestyle="--")
        axes.annotate(f"counts, n = {n}", (epochs[-1], value), ha="right", va="top" if n > 4 else "bottom")
    axes.set(xlabel="epoch", ylabel="bits per character")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
