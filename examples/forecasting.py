"""Forecast a series of three variables: 48 steps of the past in, the next 12 steps out.

The series is made here: three coupled springs that stiffen as they are stretched, driven by a season, measured with
noise. They are not linear, so a linear autoregression on the same 48 steps, the honest baseline, is good for a few
steps only.

    python forecasting.py --plot
"""

import argparse
import sys

import numpy as np
from fastgru import Sequential, callbacks, layers, optimizers, schedules, set_seed

PAST, FUTURE, NOISE = 48, 12, 0.05


def make_series(steps, rng):
    """Positions (steps, 3) of three coupled Duffing oscillators under one driving force, with noise."""
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
    """Every stretch of the series: what is known (N, PAST, 3), and what is to be said (N, FUTURE * 3)."""
    stretches = np.lib.stride_tricks.sliding_window_view(series, PAST + FUTURE, axis=0).transpose(0, 2, 1)
    return stretches[:, :PAST], stretches[:, PAST:].reshape(len(stretches), -1)  # the past is a view: no copy


def rmse(forecast, truth):
    """Root mean squared error."""
    return float(np.sqrt(np.mean(np.square(forecast - truth))))


def main():
    """Train, compare, and say whether it was worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="forecasting.png", metavar="FILE", help="draw forecasts into FILE")
    options = parser.parse_args()
    set_seed(options.seed)
    steps, units, epochs, batch_size = (4000, 48, 15, 32) if options.quick else (10_000, 96, 60, 64)

    # In the order of time: 70 % to train on, 15 % to choose the epoch by, 15 % to test on. No scale is taken from the
    # future, and as each part is cut into windows by itself, no step stands in two parts.
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

    def with_one(windows):  # the steps of a window side by side, and a constant
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
    """Draw three windows of the first variable, and what each method said about its next steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), layout="constrained")
    for axes, i in zip(figure.subplots(1, 3, sharey=True), np.linspace(0, len(x) - 1, 3, dtype=int), strict=True):
        axes.plot(range(-PAST + 1, 1), x[i, :, 0], color="black")
        axes.plot(range(1, FUTURE + 1), y[i, ::3], color="black", linewidth=3, alpha=0.3, label="what came")
        for name, forecast in forecasts.items():
            axes.plot(range(1, FUTURE + 1), forecast[i, ::3], marker=".", label=name)
        axes.set_xlabel("steps from now")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"Plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
