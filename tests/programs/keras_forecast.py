"""Forecasting: windows of a series of several sensors, early stopping, the best weights kept in a file."""

# imports
import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

# program
keras.utils.set_random_seed(2)
hours = np.arange(900)
rng = np.random.default_rng(2)
series = np.stack([np.sin(hours / 12 + phase) for phase in (0, 1, 2)], axis=1) + rng.normal(0, 0.1, (900, 3))
mean, std = series[:500].mean(axis=0), series[:500].std(axis=0)
series = (series - mean) / std
PAST, AHEAD = 24, 6


def windows(first, last):
    return keras.utils.timeseries_dataset_from_array(
        series[first:last],
        series[first + PAST + AHEAD - 1 : last, 0],
        sequence_length=PAST,
        sampling_rate=1,
        batch_size=64,
        shuffle=False,
    )


training, validation = windows(0, 500), windows(500, 900)

model = keras.Sequential(
    [
        layers.Input(shape=(PAST, 3)),
        layers.GRU(16, recurrent_dropout=0.2, return_sequences=True),
        layers.GRU(16),
        layers.Dropout(0.3),
        layers.Dense(1),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.01), loss="mse", metrics=["mae"])

path = str(pathlib.Path(tempfile.mkdtemp()) / "best.weights.h5")
callbacks = [
    keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0, patience=3),
    keras.callbacks.ModelCheckpoint(
        monitor="val_loss", filepath=path, verbose=0, save_weights_only=True, save_best_only=True
    ),
]
history = model.fit(training, epochs=4, validation_data=validation, callbacks=callbacks, verbose=0)
model.load_weights(path)
loss, mae = model.evaluate(validation, verbose=0)
score = [loss, mae]
predictions = model.predict(validation, verbose=0)
