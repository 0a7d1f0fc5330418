"""Forecast a series of three variables: the input is the last 48 steps, the output the next 12 steps.

The series is simulated: three coupled nonlinear springs with a periodic force, measured with noise. The baseline is a
linear autoregression on the same 48 steps. It forecasts only a few steps well, because the springs are not linear.

    python forecasting.py --plot
"""

import argparse
import sys

import numpy as np
from fastgru import Sequential, callbacks, layers, optimizers, schedules, set_seed

PAST, FUTURE, NOISE = 48, 12, 0.05


def make_series(steps, rng):
    """Return the positions (steps, 3) of three coupled Duffing oscillators with one periodic force, with noise."""
    dt, drive = 0.03, np.array([0.45, 0.405, 0.36])
    position, velocity = rng.normal(size=3), np.zeros(3)
    series = np.empty((steps, 3))
    for step in range(steps):
        for time in dt * np.arange(10 * step, 10 * step + 10):
            spring = position - position**3 + 0.2 * (np.roll(position, 1) - position)
            velocity += dt * (spring - 0.3 * velocity + drive * np.cos(1.2 * time))
            position = position + dt * velocity
        series[step] = position
    return series + NOISE * rng.normal(size=series.shape)


def cut_windows(series):
    """Return all windows of the series: inputs (N, PAST, 3) and targets (N, FUTURE * 3)."""
    stretches = np.lib.stride_tricks.sliding_window_view(series, PAST + FUTURE, axis=0).transpose(0, 2, 1)
    return stretches[:, :PAST], stretches[:, PAST:].reshape(len(stretches), -1)  # the inputs are a view, not a copy


def rmse(forecast, truth):
    """Return the root mean squared error."""
    return float(np.sqrt(np.mean(np.square(forecast - truth))))


def main():
    """Train, compare with the baseline, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="forecasting.png", metavar="FILE", help="plot forecasts to FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    steps, units, epochs, batch_size = (4000, 48, 15, 32) if options.quick else (10_000, 96, 60, 64)

    # Split in the order of time: 70% for training, 15% to select the epoch, 15% for the test. Mean and scale come from
    # the training part only. Each part is cut into windows separately, so no step is in two parts.
    series = make_series(steps, np.random.default_rng(options.seed))
    train, validation, test = np.split(series, [int(0.70 * steps), int(0.85 * steps)])
    mean, scale = train.mean(axis=0), train.std(axis=0)
    (x, y), (x_val, y_val), (x_test, y_test) = (
        cut_windows(((part - mean) / scale).astype("float32")) for part in (train, validation, test)
    )
    print(f"{len(x):,} windows to train on, {len(x_val):,} to validate, {len(x_test):,} to test")

    model = Sequential([layers.GRU(units, input_shape=(PAST, 3)), layers.Dense(FUTURE * 3)])
    updates = epochs * -(-len(x) // batch_size)
    rate = schedules.CosineDecay(0.0, updates, warmup_target=5e-3, warmup_steps=updates // 20)
    model.compile(optimizer=optimizers.Adam(rate, global_clipnorm=1.0), loss="mean_squared_error", metrics=["mae"])
    model.fit(
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        validation_data=(x_val, y_val),
        callbacks=[callbacks.EarlyStopping(patience=10, restore_best_weights=True)],
        verbose=2,
    )

    def with_one(windows):  # flatten the steps of each window, and append a constant
        return np.column_stack([windows.reshape(len(windows), -1), np.ones(len(windows))])

    coefficients = np.linalg.lstsq(with_one(x), y, rcond=None)[0]
    forecasts = {
        "GRU": model.predict(x_test),
        "linear autoregression": with_one(x_test) @ coefficients,
        "persistence": np.tile(x_test[:, -1], FUTURE),
    }
    print("RMSE in standard deviations, 1 / 4 / 12 steps ahead, and over all 12:")
    errors = {name: rmse(forecast, y_test) for name, forecast in forecasts.items()}
    for name, forecast in forecasts.items():
        ahead = [rmse(forecast[:, 3 * k - 3 : 3 * k], y_test[:, 3 * k - 3 : 3 * k]) for k in (1, 4, 12)]
        print(f"  {name:<22}" + "  ".join(f"{error:.3f}" for error in (*ahead, errors[name])))
    if options.plot:
        plot(options.plot, x_test, y_test, forecasts)

    gru, linear, persistence = errors.values()
    floor = NOISE * float(np.sqrt(np.mean(1 / scale**2)))
    print(
        f"Result: test RMSE {gru:.3f}, linear autoregression {linear:.3f}, persistence {persistence:.3f} "
        f"(the noise alone: {floor:.3f})"
    )
    return 0 if gru < (0.9 if options.quick else 0.5) * min(linear, persistence) else 1


def plot(path, x, y, forecasts):
    """Plot three windows of the first variable with the forecasts of each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), layout="constrained")
    for axes, i in zip(figure.subplots(1, 3, sharey=True), np.linspace(0, len(x) - 1, 3, dtype=int), strict=True):
        axes.plot(range(-PAST + 1, 1), x[i, :, 0], color="black")
        axes.plot(range(1, FUTURE + 1), y[i, ::3], color="black", linewidth=3, alpha=0.3, label="true values")
        for name, forecast in forecasts.items():
            axes.plot(range(1, FUTURE + 1), forecast[i, ::3], marker=".", label=name)
        axes.set_xlabel("steps from now")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
