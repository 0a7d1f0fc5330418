"""Classifying texts: words as integers, padding that a mask leaves out, a bidirectional GRU, one probability."""

# imports
import keras
import numpy as np
from keras import layers

# program
keras.utils.set_random_seed(3)
rng = np.random.default_rng(3)
WORDS, LONGEST = 50, 20

# A text is positive if more of its words come from the upper half of the vocabulary.
texts = [rng.integers(1, WORDS, rng.integers(3, LONGEST + 10)).tolist() for _ in range(400)]
labels = np.array([np.mean(np.array(text[-LONGEST:]) >= WORDS // 2) > 0.5 for text in texts]).astype("float32")
x = keras.utils.pad_sequences(texts, maxlen=LONGEST, padding="post")

model = keras.Sequential(
    [
        layers.Embedding(input_dim=WORDS, output_dim=8, mask_zero=True),
        layers.Bidirectional(layers.GRU(16, dropout=0.1, kernel_regularizer=keras.regularizers.L2(1e-4))),
        layers.Dense(16, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(
    loss=keras.losses.BinaryCrossentropy(from_logits=False),
    optimizer=keras.optimizers.RMSprop(1e-2, clipnorm=1.0),
    metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision")],
)
history = model.fit(
    x,
    labels,
    epochs=6,
    batch_size=32,
    validation_split=0.25,
    callbacks=[keras.callbacks.ReduceLROnPlateau(patience=2), keras.callbacks.TerminateOnNaN()],
    verbose=0,
)
score = model.evaluate(x[300:], labels[300:], verbose=0)
predictions = model(x[300:])
