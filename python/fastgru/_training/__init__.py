"""The training and evaluation loops, and the data sets that they read."""
