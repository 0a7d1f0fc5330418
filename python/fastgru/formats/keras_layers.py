"""Keras' words for layers, losses and optimizers, in the dialects of Keras 3, Keras 2 and TensorFlow.js."""
