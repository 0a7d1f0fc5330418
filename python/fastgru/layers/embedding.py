"""The embedding layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastgru import functional
from fastgru._support import checks, sequences
from fastgru.layers import keras_options
from fastgru.layers.base import Array, Layer, Shape
from fastgru.regularizers import Regularizer


class Embedding(Layer):
    """Replace each token by a trainable vector: integers (N, T) become (N, T, output_dim), as in Keras.

    Parameters
    ----------
    input_dim : int
        V, the number of different tokens. Tokens are integers from 0 to V - 1.
    output_dim : int
        D, the size of each vector.
    embeddings_initializer : str or initializer
        See `fastgru.initializers`.
    embeddings_regularizer : str or regularizer, optional
        See `fastgru.regularizers`. With a regularizer the gradient is dense, and training steps are slower.
    embeddings_constraint : None
        Not supported.
    mask_zero : bool
        Whether token 0 is padding. It may then occur only at the end of a sequence.
    weights : array_like (V, D), or a list with it, optional
        Initial vectors, such as pretrained ones, used instead of the initializer.
    lora_rank, lora_alpha, quantization_config : None
        Not supported.
    input_length : int, optional
        Ignored, as in Keras 3.
    input_shape : tuple, optional
        (T,), for the first layer of a model; T may be None for sequences of any length.
    name, dtype, trainable
        As in `Layer`.

    Notes
    -----
    The weight is embeddings (V, D). `backward` writes only the rows of the tokens in this batch and the previous one.
    With `lengths`, padding may contain any integers.

    Examples
    --------
    >>> layer = layers.Embedding(1000, 16)
    >>> layer(np.array([[4, 20, 7]])).shape
    (1, 3, 16)
    """

    initializers: ClassVar[dict[str, str]] = {"embeddings": "embeddings_initializer"}
    regularizers: ClassVar[dict[str, str]] = {"embeddings": "embeddings_regularizer"}
    takes_tokens: ClassVar[bool] = True
    embeddings_regularizer: Regularizer | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: None = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: None = None,
        lora_alpha: None = None,
        quantization_config: None = None,
        *,
        input_length: int | None = None,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(
            embeddings_constraint=embeddings_constraint,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            quantization_config=quantization_config,
            input_length=input_length,
        )
        self.input_dim = checks.integer("input_dim", input_dim, least=1)
        self.output_dim = checks.integer("output_dim", output_dim, least=1)
        self.mask_zero = self.finds_padding = checks.flag("mask_zero", mask_zero)
        self._set_initializers(embeddings_initializer=embeddings_initializer)
        self._set_regularizers(embeddings_regularizer=embeddings_regularizer)
        self._given = None if weights is None else self._checked_table(weights)
        self._tokens: Array | None = None
        self._touched: Array | None = None  # rows of the gradient that are not zero

    def _checked_table(self, weights: Any) -> Array:
        """Return the vectors in `weights`, an array or a list of one array."""
        table = checks.array("weights", weights)
        if table.ndim == 3 and len(table) == 1:
            table = table[0]
        if table.shape != (self.input_dim, self.output_dim) or table.dtype.kind not in "biuf":
            raise ValueError(
                f"weights: expected numbers of shape ({self.input_dim}, {self.output_dim}) because of input_dim and "
                f"output_dim, got {table.dtype} of shape {table.shape}"
            )
        return table

    def initial_weights(self, rng: np.random.Generator) -> dict[str, Array]:  # noqa: D102
        return super().initial_weights(rng) if self._given is None else {"embeddings": self._given}

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 2:
            raise ValueError(f"{self.name}: expected tokens of shape (N, T), got {checks.dims(input_shape)}")
        return (*input_shape, self.output_dim)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"embeddings": (self.input_dim, self.output_dim)}

    def bind(self, weights: dict[str, Array], gradients: dict[str, Array], generator: np.random.Generator) -> None:  # noqa: D102
        super().bind(weights, gradients, generator)
        self._touched = None

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        tokens = self._tokens_of(self.name, x, lengths)
        if training:
            self._tokens = tokens.astype(np.int64)
        return np.take(self.parameters["embeddings"], tokens, axis=0)

    def check_input(self, name: str, x: Array, lengths: Array | None, first: int) -> Array | None:  # noqa: D102
        self._tokens_of(name, x, lengths, first)
        if not self.mask_zero:
            return lengths
        return sequences.prefix_lengths(f"{name}, masked by {self.name}", x != 0, lengths, first=first)

    def _tokens_of(self, name: str, x: Array, lengths: Array | None, first: int = 0) -> Array:
        """Return the tokens with padding replaced by 0; `first` is the sample index of the first row, for messages."""
        tokens = x
        if lengths is not None:
            tokens = np.where(sequences.valid_steps(lengths, x.shape[1]), x, 0)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.input_dim):
            row, step = np.argwhere((tokens < 0) | (tokens >= self.input_dim))[0]
            raise ValueError(
                f"{name}: expected tokens from 0 to {self.input_dim - 1} because input_dim is {self.input_dim}, "
                f"got {x[row, step]} at index ({first + row}, {step})"
            )
        return tokens

    def output_lengths(self, x: Array, lengths: Array | None) -> Array | None:  # noqa: D102
        return sequences.prefix_lengths(f"{self.name}, within a batch", x != 0, lengths) if self.mask_zero else lengths

    def backward(self, d_y: Array, *, input_gradient: bool) -> None:  # noqa: D102
        del input_gradient  # tokens have none
        if self._tokens is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        gradient = self.gradients["embeddings"]
        if self._touched is None or self.embeddings_regularizer is not None:
            gradient[...] = 0
        else:
            gradient[self._touched] = 0
        functional.embedding_backward(self._tokens.reshape(-1), d_y.reshape(-1, self.output_dim), gradient)
        self._touched = np.unique(self._tokens)

    def gradients_changed(self) -> None:  # noqa: D102
        self._touched = None
