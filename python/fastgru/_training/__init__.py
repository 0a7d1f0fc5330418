"""The loops of fit and evaluate, and the data they go over."""
