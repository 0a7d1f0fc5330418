"""A character language model that is trained on the documentation of Python's standard library.

The text is the docstrings of the library's modules, which every Python installation contains. About a tenth of the
modules are the test set. Two stacked GRUs predict the probability of each next character. The result is compared in
bits per character with the baseline: counts of n-grams.

    python text.py --temperature 0.7
"""

import argparse
import ast
import pathlib
import sys
import zlib

import numpy as np
from fastgru import Sequential, layers, optimizers, schedules, set_seed

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))  # other characters are removed
STEPS = 128


def read_docstrings(modules):
    """Return the docstrings of Python files as one array of tokens (T,), which are indices of characters."""
    nodes = (node for path in modules for node in ast.walk(ast.parse(path.read_bytes())))
    texts = [ast.get_docstring(node) for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    index = {character: i for i, character in enumerate(CHARACTERS)}
    return np.array([index[c] for c in "\n\n".join(filter(None, texts)) if c in index])


def ngram_bits(train, test, order):
    """Return bits per character of `test`, from counts of n-grams of up to `order` characters in `train`.

    The smoothing is that of Witten and Bell (1991). For a context that occurred c times, followed by d different
    characters, the probability of the next shorter context has the weight d / (c + d).
    """
    size = len(CHARACTERS)
    probability = np.full(len(test), 1 / size)
    for n in range(1, order + 1):
        # Each n-gram as one number. Its context is the same number without the last character.
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
    """Return the value of each key in `asked`, or 0 if it is missing. `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def make_layers(units, *, stateful=False):
    """Return the layers of the model. With `stateful`, each call continues where the one before ended."""
    return [
        layers.Embedding(len(CHARACTERS), 32, input_shape=(None,)),
        layers.GRU(units, return_sequences=True, stateful=stateful),
        layers.GRU(units, return_sequences=True, stateful=stateful),
        layers.Dense(len(CHARACTERS), activation="softmax"),
    ]


def write(model, begin, length, temperature, rng):
    """Continue the text `begin` by `length` characters, which are drawn with the probabilities of `model`."""
    model.reset_states()
    text, tokens = begin, [CHARACTERS.index(character) for character in begin]
    for _ in range(length):
        probabilities = model.predict(np.array([tokens]))[0, -1].astype("float64") ** (1 / temperature)
        tokens = [rng.choice(len(CHARACTERS), p=probabilities / probabilities.sum())]  # states hold the rest
        text += CHARACTERS[tokens[0]]
    return text


def main():
    """Train, compare with the baseline, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7, help="below 1: likely characters, above 1: rare ones")
    parser.add_argument("--plot", nargs="?", const="text.png", metavar="FILE", help="plot the training to FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    units, epochs, batch_size = (64, 6, 8) if options.quick else (192, 10, 32)

    library = sorted(pathlib.Path(ast.__file__).parent.glob("*.py"))
    kept = [path for path in library if zlib.crc32(path.stem.encode()) % 10 == 0]  # complete modules
    if not kept:
        sys.exit("text.py: this Python comes without the source files of its standard library")
    train = read_docstrings(path for path in library if path not in kept)
    test = read_docstrings(kept)
    if options.quick:
        train, test = train[:100_000], test[:10_000]
    # The targets are the inputs shifted by one character. An incomplete last window is dropped.
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
    # The test text is a single sequence. It is not used to select an epoch.
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
    """Plot bits per character by epoch, and the results of counting n-grams."""
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
