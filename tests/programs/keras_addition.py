"""Sequence to sequence: an encoder and a decoder learn to add two numbers that are given as text."""

# imports
import keras
import numpy as np
from keras import layers

# program
DIGITS = 2
LENGTH = DIGITS + 1 + DIGITS
CHARACTERS = "0123456789+ "

keras.utils.set_random_seed(1)
rng = np.random.default_rng(1)


def encode(texts, length):
    return keras.utils.to_categorical([[CHARACTERS.index(c) for c in text.ljust(length)] for text in texts], 12)


terms = rng.integers(0, 10**DIGITS, (600, 2))
x = encode([f"{a}+{b}"[::-1] for a, b in terms], LENGTH)
y = encode([str(a + b) for a, b in terms], DIGITS + 1)

model = keras.Sequential()
model.add(keras.Input(shape=(LENGTH, len(CHARACTERS))))
model.add(layers.GRU(32))
model.add(layers.RepeatVector(DIGITS + 1))
model.add(layers.GRU(32, return_sequences=True))
model.add(layers.TimeDistributed(layers.Dense(len(CHARACTERS), activation="softmax")))
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.summary()

history = model.fit(x[:500], y[:500], batch_size=32, epochs=6, validation_data=(x[500:], y[500:]), verbose=0)
predictions = model.predict(x[500:], verbose=0)
answers = np.argmax(predictions, axis=-1)
score = model.evaluate(x[500:], y[500:], verbose=0)
