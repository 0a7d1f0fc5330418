"""Classify sequences of different lengths with two bidirectional GRUs, one on top of the other.

A noisy track of 40 to 120 points in the plane may hold a clockwise loop, an anticlockwise one, or both; where there
are both, the class says which came first. Those classes are rare, so class weights are used, and macro F1 counts. The
baseline is the same head on layers that see a point at a time.

    python bidirectional.py --plot
"""

import argparse
import sys

import numpy as np
from fastgru import Sequential, layers, optimizers, pad_sequences, schedules, set_seed

CLASSES = ["neither", "C", "A", "C then A", "A then C"]
SHARES = [0.50, 0.20, 0.20, 0.06, 0.04]
LOOPS = [(), (0,), (1,), (0, 1), (1, 0)]  # of each class, in order
ANGLES = np.linspace(0, 2 * np.pi, 10)
SHAPES = [np.column_stack([np.sin(ANGLES), sign * np.cos(ANGLES)]) for sign in (1, -1)]


def make_data(count, rng):
    """Tracks (N, T, 2) padded with 0, their classes (N,) and lengths (N,)."""
    y = rng.choice(len(CLASSES), count, p=SHARES)
    tracks = []
    for label in y:
        track = rng.normal(scale=0.5, size=(rng.integers(40, 121), 2))
        for part, loop in zip(np.array_split(track, max(1, len(LOOPS[label]))), LOOPS[label], strict=False):
            begin = rng.integers(len(part) - len(ANGLES) + 1)
            part[begin : begin + len(ANGLES)] += SHAPES[loop]
        tracks.append(track.astype("float32"))
    x, lengths = pad_sequences(tracks)
    return x, y, lengths


def main():
    """Train, compare, and say whether it was worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="bidirectional.png", metavar="FILE", help="draw results into FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    count, epochs, units, batch_size = (2000, 8, 16, 32) if options.quick else (8000, 20, 32, 64)
    x, y, lengths = make_data(count, rng)
    x_test, y_test, test_lengths = make_data(2000, rng)
    # The usual balance: each class weighs as much as any other.
    class_weight = {label: count / (len(CLASSES) * int(np.sum(y == label))) for label in range(len(CLASSES))}
    print("class weights: " + ", ".join(f"{CLASSES[label]} {weight:.2f}" for label, weight in class_weight.items()))

    bodies = {
        "a point at a time": [
            layers.Dense(64, activation="relu", input_shape=(None, 2)),
            layers.Dense(64, activation="relu"),
        ],
        "two bidirectional GRUs": [
            layers.Bidirectional(layers.GRU(units, return_sequences=True), input_shape=(None, 2)),
            layers.Dropout(0.2),
            layers.Bidirectional(layers.GRU(units, return_sequences=True)),
        ],
    }
    scores = {}
    for name, body in bodies.items():
        print(f"\n{name}:")
        head = [
            layers.GlobalMaxPooling1D(),  # over the steps that count
            layers.Dropout(0.2),
            layers.Dense(len(CLASSES), activation="softmax"),
        ]
        model = Sequential([*body, *head])
        updates = epochs * -(-count // batch_size)
        rate = schedules.CosineDecay(0.0, updates, warmup_target=5e-3, warmup_steps=updates // 10)
        model.compile(
            optimizer=optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy", "f1_score"],
        )
        model.summary()
        model.fit(
            x,
            y,
            lengths=lengths,
            class_weight=class_weight,
            epochs=epochs,
            batch_size=batch_size,
            verbose=2,
        )
        _, accuracy, macro_f1 = model.evaluate(x_test, y_test, lengths=test_lengths)
        scores[name] = (macro_f1, accuracy)

    predicted = model.predict(x_test, lengths=test_lengths).argmax(axis=1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (y_test, predicted), 1)
    print("\nHow often a test track of the row's class was taken for the column's:")
    print(" " * 10 + "".join(f"{name:>10}" for name in CLASSES))
    for name, row in zip(CLASSES, confusion, strict=True):
        print(f"{name:>10}" + "".join(f"{number:>10}" for number in row))
    if options.plot:
        plot(options.plot, confusion)
    described = [f"{name} {macro_f1:.3f} (accuracy {accuracy:.2%})" for name, (macro_f1, accuracy) in scores.items()]
    majority = float(np.mean(y_test == np.bincount(y).argmax()))
    print(f"Result: test macro F1 {'; '.join(reversed(described))}; always the largest class: accuracy {majority:.2%}")
    (baseline, _), (macro_f1, _) = scores.values()
    return 0 if macro_f1 > max(0.6 if options.quick else 0.95, baseline) else 1


def plot(path, confusion):
    """Draw the confusion matrix, each row as shares of its class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    shares = confusion / confusion.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(confusion):
        axes.text(
            column, row, number, ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black"
        )
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
