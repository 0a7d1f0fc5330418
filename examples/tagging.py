"""Tag every step of sequences of different lengths: which brackets pair up, and which pair a letter stands in.

Strings like ``ab(a[b){b}`` have brackets that were never closed or never opened. A stray bracket is known only once the
rest has been read, and so is what its letters are inside of: a tagger has to look both ways. It is compared with the
best one that sees a character at a time, and with a GRU that reads forwards only.

    python tagging.py
"""

import argparse
import sys

import numpy as np
from fastgru import Sequential, layers, optimizers, pad_sequences, schedules, set_seed

PAIRS = ["()", "[]", "{}"]
OPENING = "([{"
CHARACTERS = "ab" + "".join(PAIRS)
TAGS = ["outside", "in ()", "in []", "in {}", "paired", "stray"]


def make_text(rng, depth=0):
    """A string of letters and nested brackets."""
    text = ""
    for _ in range(rng.integers(1, 8 if depth == 0 else 5)):
        if depth == 3 or rng.random() < 0.5:
            text += "ab"[rng.integers(2)]
        else:
            opening, closing = PAIRS[rng.integers(3)]
            text += opening + make_text(rng, depth + 1) + closing
    return text


def tags_of(text):
    """The tag of each character: a closing bracket pairs with the last open one if that is of its kind."""
    open_brackets, paired = [], set()
    for i, character in enumerate(text):
        if character in OPENING:
            open_brackets.append(i)
        elif open_brackets and text[open_brackets[-1]] + character in PAIRS:
            paired |= {open_brackets.pop(), i}
    tags, around = [], [0]
    for i, character in enumerate(text):
        if character in "ab":
            tags.append(around[-1])
        else:
            tags.append(TAGS.index("paired" if i in paired else "stray"))
        if i in paired and character in OPENING:
            around.append(1 + OPENING.index(character))
        elif i in paired:
            around.pop()
    return tags


def make_data(count, rng):
    """Texts that have lost up to two brackets each: characters and tags (N, T) padded with 0, and lengths (N,)."""
    texts = []
    for _ in range(count):
        text = make_text(rng)
        for _ in range(rng.integers(3)):
            brackets = [i for i, character in enumerate(text) if character not in "ab"]
            if brackets:
                lost = rng.choice(brackets)
                text = text[:lost] + text[lost + 1 :]
        texts.append(text or "a")
    x, lengths = pad_sequences([[CHARACTERS.index(character) for character in text] for text in texts])
    y, _ = pad_sequences([tags_of(text) for text in texts])
    return x, y, lengths, texts


def main():
    """Train, compare, and say whether it was worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="tagging.png", metavar="FILE", help="draw the training into FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    count, epochs, batch_size = (1500, 8, 32) if options.quick else (8000, 20, 64)
    x, y, lengths, _ = make_data(count, rng)
    x_test, y_test, test_lengths, texts = make_data(1000, rng)
    print(f"{count:,} texts of {lengths.min()} to {lengths.max()} characters to train on, {len(texts):,} to test")

    # Without context the best tag for a character is the one it has most often.
    valid = np.arange(x.shape[1]) < lengths[:, None]
    counts = np.zeros((len(CHARACTERS), len(TAGS)), int)
    np.add.at(counts, (x[valid], y[valid]), 1)
    valid = np.arange(x_test.shape[1]) < test_lengths[:, None]
    guessed, true = counts.argmax(axis=1)[x_test[valid]], y_test[valid]
    confusion = np.zeros((len(TAGS), len(TAGS)), int)
    np.add.at(confusion, (true, guessed), 1)
    f1 = 2 * np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1))
    scores = {"a character at a time": (float(np.mean(guessed == true)), float(f1.mean()))}
    histories = {}

    for name, recurrent in {
        "forwards only": layers.GRU(64, return_sequences=True),
        "both directions": layers.Bidirectional(layers.GRU(64, return_sequences=True)),
    }.items():
        print(f"\nA GRU, {name}:")
        model = Sequential(
            [
                layers.Embedding(len(CHARACTERS), 8, input_shape=(None,)),  # None: any number of steps
                recurrent,
                layers.Dense(len(TAGS), activation="softmax"),  # on each step by itself
            ]
        )
        rate = schedules.CosineDecay(1e-2, decay_steps=epochs * -(-count // batch_size))
        model.compile(
            optimizer=optimizers.Adam(rate, global_clipnorm=1.0),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy", "f1_score"],
        )
        # With lengths neither loss nor metrics nor GRU look at the padding.
        histories[name] = model.fit(x, y, lengths=lengths, epochs=epochs, batch_size=batch_size, verbose=2)
        _, accuracy, macro_f1 = model.evaluate(x_test, y_test, lengths=test_lengths)
        scores[name] = (accuracy, macro_f1)

    tagged = model.predict(x_test[:3], lengths=test_lengths[:3]).argmax(axis=-1)
    print("\nTest texts, the brackets that the last model holds for stray marked below:")
    for text, tags in zip(texts, tagged, strict=False):
        marks = ["^" if tag == TAGS.index("stray") else " " for tag in tags[: len(text)]]
        print(f"  {text}\n  {''.join(marks)}")
    if options.plot:
        plot(options.plot, histories, scores)
    described = [f"{name} {accuracy:.2%} (macro F1 {macro_f1:.3f})" for name, (accuracy, macro_f1) in scores.items()]
    print(f"Result: test accuracy per step {'; '.join(described)}")
    context_free, forwards, both = (accuracy for accuracy, _ in scores.values())
    return 0 if both > max(0.85 if options.quick else 0.99, forwards, context_free) else 1


def plot(path, histories, scores):
    """Draw the training accuracy by epoch, and that of the tagger without context."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, history in histories.items():
        axes.plot(np.array(history.epoch) + 1, history.history["accuracy"], marker="o", label=name)
    name, (accuracy, _) = next(iter(scores.items()))
    axes.axhline(accuracy, color="grey", linestyle="--", label=name)
    axes.set(xlabel="epoch", ylabel="accuracy per step, training")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
