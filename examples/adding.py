"""The adding problem: remember two numbers over 600 steps (Hochreiter and Schmidhuber 1997).

Each step brings a random number from 0 to 1 and a mark; exactly one step of each half is marked, and the target is the
sum of the two marked numbers. Who knows nothing says 1 and has a mean squared error of 1/6 = 0.167. To do better, the
gradient has to come through hundreds of steps, in which a recurrent network without gates loses it.

The data never ends: each batch is made when it is wanted, as a reader of files larger than memory would.

    python adding.py --plot
"""

import argparse
import sys
import time

import numpy as np
from fastgru import Sequential, callbacks, layers, optimizers, schedules, set_seed

UNITS = 64


def make_batch(rng, count, steps):
    """Numbers and marks (count, steps, 2), and the sums (count, 1)."""
    x = np.zeros((count, steps, 2), np.float32)
    x[:, :, 0] = rng.random((count, steps))
    for half in (slice(0, steps // 2), slice(steps // 2, steps)):
        x[np.arange(count), rng.integers(half.start, half.stop, count), 1] = 1
    return x, (x[:, :, 0] * x[:, :, 1]).sum(axis=1, keepdims=True)


def endless_batches(rng, count, steps):
    """New batches, one after the other."""
    while True:
        yield make_batch(rng, count, steps)


def main():
    """Train, compare, and say whether it was worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 steps instead of 600: some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="adding.png", metavar="FILE", help="draw the training into FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    steps, epochs, updates_an_epoch = (60, 8, 100) if options.quick else (600, 40, 100)
    x_test, y_test = make_batch(rng, 2000, steps)
    validation = make_batch(rng, 200, steps)

    model = Sequential([layers.GRU(UNITS, input_shape=(None, 2)), layers.Dense(1)])
    # Update gates that begin almost closed to new input (sigmoid(1) of the state is kept) remember longer from the
    # start. In Keras' order the gates' columns are z, r, n, and the first row is the input's bias.
    kernel, recurrent_kernel, bias, *head = model.get_weights()
    bias[0, :UNITS] = 1.0
    model.set_weights([kernel, recurrent_kernel, bias, *head])

    # A large rate for a short time, and small ones to settle; the clipping keeps single steep batches from undoing it.
    rate = schedules.OneCycle(1e-2, epochs * updates_an_epoch, pct_start=0.1, div_factor=10, final_div_factor=100)
    model.compile(optimizer=optimizers.Adam(rate, global_clipnorm=1.0), loss="mean_squared_error")
    print(f"{steps} steps, batches of 64, {epochs * updates_an_epoch:,} updates; saying 1 has an error of 0.167")
    begin = time.perf_counter()

    def report(epoch, logs):  # fit's own lines have four digits after the point, too few here
        if (epoch + 1) % (epochs // 8) == 0:
            print(
                f"{(epoch + 1) * updates_an_epoch:>5,} updates: training error {logs['loss']:.2e}, "
                f"validation {logs['val_loss']:.2e} ({time.perf_counter() - begin:.0f} s)",
                flush=True,
            )

    history = model.fit(
        endless_batches(rng, 64, steps),
        steps_per_epoch=updates_an_epoch,
        epochs=epochs,
        validation_data=validation,
        callbacks=[callbacks.LambdaCallback(on_epoch_end=report)],
        verbose=0,
    )
    (error,) = model.evaluate(x_test, y_test)
    print("Some sums and what the model says:")
    for said, true in zip(model.predict(x_test[:5])[:, 0], y_test[:5, 0], strict=True):
        print(f"  {true:.3f}  {said:.3f}")
    if options.plot:
        plot(options.plot, history, updates_an_epoch)
    baseline = float(np.mean(np.square(y_test - 1)))
    print(f"Result: test MSE {error:.2e} over {steps} steps, against {baseline:.3f} for always saying 1")
    return 0 if error <= (2e-2 if options.quick else 1e-4) else 1


def plot(path, history, updates_an_epoch):
    """Draw the errors by update, and that of knowing nothing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    updates = (np.array(history.epoch) + 1) * updates_an_epoch
    axes.semilogy(updates, history.history["loss"], label="training")
    axes.semilogy(updates, history.history["val_loss"], label="validation")
    axes.axhline(1 / 6, color="grey", linestyle="--", label="always saying 1")
    axes.set(xlabel="updates", ylabel="mean squared error")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
