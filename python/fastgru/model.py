"""Sequential: layers in a row, their memory, and what can be done with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import checks, losses, optimizers, training
from fastgru._native._cpu_features import __version__
from fastgru.formats import checkpoint
from fastgru.formats.checkpoint import ModelFileError
from fastgru.layers import LAYERS, Dense, Layer
from fastgru.layers.base import Shape
from fastgru.progress import Progress
from fastgru.samples import Samples, natural_dtype, require_samples
from fastgru.seeding import new_generator

Array = NDArray[Any]

METRICS = ("accuracy",)

#: Weights and gradients of a layer begin on a cache line of the flat buffers.
_LINE = 64


class Sequential:
    """A model of layers in a row, in Keras' words.

    Parameters
    ----------
    layers : iterable of Layer, optional
        As by `add`.
    dtype : {"float32", "float64"}, optional
        What the weights are and the model computes in. If not given, float32, until the first `fit` on float64 data
        makes it float64: data stays as it is given.
    name : str

    Attributes
    ----------
    layers : list of Layer
    parameters, gradient : ndarray (P,)
        All weights and their gradients, flat; the layers' arrays are views of them. Empty until the model is built.

    Notes
    -----
    A model serves one call at a time: give each thread its own copy (`copy.deepcopy`).

    Examples
    --------
    >>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
    >>> model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    >>> history = model.fit(x, y, epochs=10)
    """

    def __init__(
        self, layers: Iterable[Layer] | None = None, *, dtype: str | None = None, name: str = "sequential"
    ) -> None:
        self.layers: list[Layer] = []
        self.name = name
        self._dtype = None if dtype is None else checks.floating_dtype("dtype", dtype)
        self._generator = new_generator()
        self._input_shape: Shape = ()
        self._output_shapes: list[Shape] = []
        self.parameters: Array = np.empty(0, np.float32)
        self.gradient: Array = np.empty(0, np.float32)
        self._sum: Array = np.empty(0, np.float32)  # of a batch's earlier pieces, while it is trained on
        self.optimizer: optimizers.Adam | None = None
        self.loss = ""
        self.metrics: list[str] = []
        if isinstance(layers, Layer):
            raise TypeError(f"layers: expected a list of layers, got a single {type(layers).__name__}")
        for layer in layers or ():
            self.add(layer)

    # --- Topology and memory ---------------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights, float32 where nothing has decided yet."""
        return self._dtype or np.dtype(np.float32)

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return bool(self._output_shapes) and len(self._output_shapes) == len(self.layers)

    @property
    def input_shape(self) -> Shape:
        """With the batch axis, None where any size will do; empty until the model is built."""
        return self._input_shape

    @property
    def output_shape(self) -> Shape:
        """With the batch axis; empty until the model is built."""
        return self._output_shapes[-1] if self._output_shapes else ()

    def add(self, layer: Layer) -> None:
        """Append a layer. If the first one knows its ``input_shape``, the weights are made at once."""
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer of fastgru.layers, got {layer!r}")
        if any(layer is other for other in self.layers):
            raise ValueError(f"layer: {layer.name} is in this model already, and layers cannot be shared")
        if layer.weights:
            raise ValueError(f"layer: {layer.name} belongs to another model already, and layers cannot be shared")
        names = {other.name for other in self.layers}
        layer.name = layer.given_name or _unused_name(layer.kind(), names)
        if layer.name in names:
            raise ValueError(f"name: expected a name no other layer has, got {layer.name!r} twice")
        expected = self.output_shape if self.layers else None
        if expected and layer.input_shape is not None and (None, *layer.input_shape) != expected:
            raise ValueError(
                f"{layer.name}: expected input_shape {checks.dims(expected[1:])} because the layer before gives that, "
                f"got {layer.input_shape}"
            )
        if self.built:
            shape = layer.build(expected or ())
            self.layers.append(layer)
            self._output_shapes.append(shape)
            self._allocate(keep=True)
        else:
            self.layers.append(layer)
            first = self.layers[0].input_shape
            if first is not None:
                try:
                    self.build((None, *first))
                except BaseException:
                    self.layers.pop()
                    raise

    def build(self, input_shape: Shape) -> None:
        """Make the weights for inputs of that shape, batch axis included; data given to `fit` does it as well."""
        if not self.layers:
            raise ValueError("the model has no layers: add one")
        if self.built:
            raise ValueError(f"the model is built already, for input {checks.dims(self._input_shape)}")
        self._infer_shapes(input_shape)
        self._allocate()

    def _infer_shapes(self, input_shape: Shape) -> None:
        declared = self.layers[0].input_shape
        if declared is not None and not _fits(input_shape[1:], declared):
            raise ValueError(
                f"input_shape: expected {declared} because the first layer says so, got {checks.dims(input_shape[1:])}"
            )
        shapes = [input_shape]
        for layer in self.layers:
            shapes.append(layer.build(shapes[-1]))
        self._input_shape, self._output_shapes = shapes[0], shapes[1:]

    def _allocate(self, *, keep: bool = False, initialize: bool = True) -> None:
        """Lay the weights of all layers into one flat buffer; `keep` the values of those that have some."""
        old = {layer.name: dict(layer.weights) for layer in self.layers} if keep else {}
        line = _LINE // self.dtype.itemsize
        places: list[tuple[Layer, str, slice, tuple[int, ...]]] = []
        end = 0
        for layer in self.layers:
            for name, shape in layer.weight_shapes().items():
                size = int(np.prod(shape, dtype=object))
                places.append((layer, name, slice(end, end + size), shape))
                end += -(-size // line) * line
        if end * self.dtype.itemsize > sys.maxsize:
            raise MemoryError(f"the model's {end:,} parameters are more than any memory holds")
        parameters, gradient = np.zeros(end, self.dtype), np.zeros(end, self.dtype)
        weights: dict[str, dict[str, Array]] = {layer.name: {} for layer in self.layers}
        gradients: dict[str, dict[str, Array]] = {layer.name: {} for layer in self.layers}
        for layer, name, place, shape in places:
            weights[layer.name][name] = parameters[place].reshape(shape)
            gradients[layer.name][name] = gradient[place].reshape(shape)
        for layer in self.layers:
            new = weights[layer.name]
            if old.get(layer.name):
                values = old[layer.name]
            elif initialize:
                values = layer.initial_weights(self._generator)
            else:
                values = {}
            for name, value in values.items():
                new[name][...] = value
            layer.bind(new, gradients[layer.name])
        self.parameters, self.gradient = parameters, gradient
        if self.optimizer is not None:
            self.optimizer.set_state(0, {})

    def _prepare(self, name: str, x: Any, *, decide_dtype: bool = False) -> Samples:
        """Check samples, and build the model for them if it is not built yet."""
        require_samples(name, x)
        if decide_dtype and self._dtype is None:
            self._dtype = natural_dtype(x)
            if self.built and self.parameters.dtype != self._dtype:
                self._allocate(keep=True)
        if not self.built:
            self.build((None, *x.shape[1:]))
        return Samples(name, x, self._input_shape, self.dtype)

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(
                "the model has no weights yet: give its first layer an input_shape, or call build or fit first"
            )

    # --- Computing -------------------------------------------------------------------------------------------

    def forward(self, x: Array, *, training: bool = False) -> Array:
        """Outputs for one batch (N, ...) in the model's dtype; with `training`, layers keep what backward needs."""
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def logits(self, x: Array, *, training: bool) -> Array:
        """`forward` up to the last layer's activation."""
        head = self._head()
        for layer in self.layers[:-1]:
            x = layer.forward(x, training=training)
        return head.logits(x, training=training)

    def tape_bytes(self, x: Array) -> int:
        """What `logits` leaves in memory for `backward` when it trains on the batch `x`."""
        steps = x.shape[1] if x.ndim > 2 else 0
        return len(x) * sum(layer.tape_elements(steps) for layer in self.layers) * self.dtype.itemsize

    def backward(self, d_logits: Array, *, add: bool = False) -> None:
        """Overwrite `gradient` for the last call of `logits` in training, or with `add` add to what it holds."""
        if add:
            if self._sum.shape != self.gradient.shape or self._sum.dtype != self.dtype:
                self._sum = np.empty_like(self.gradient)
            np.copyto(self._sum, self.gradient)
            self.backward(d_logits)
            np.add(self._sum, self.gradient, out=self.gradient)
            return
        inner = len(self.layers) > 1
        d_x = self._head().backward_from_logits(d_logits, input_gradient=inner)
        for index in range(len(self.layers) - 2, -1, -1):
            assert d_x is not None
            d_x = self.layers[index].backward(d_x, input_gradient=index > 0)

    def _head(self) -> Dense:
        head = self.layers[-1] if self.layers else None
        if not isinstance(head, Dense):
            found = type(head).__name__ if head else "no layers"
            raise ValueError(f"the last layer must be a Dense for a loss, got {found}")  # noqa: TRY004
        return head

    # --- Training --------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Adam = "adam",
        loss: str = "categorical_crossentropy",
        metrics: Sequence[str] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : "adam" or fastgru.optimizers.Adam
        loss : {"categorical_crossentropy", "sparse_categorical_crossentropy"}
            Either takes integer labels (N,) as well as one-hot targets (N, C). It is computed from the logits, so the
            last layer must be ``Dense(..., activation="softmax")``.
        metrics : list of "accuracy", optional
        """
        checked = optimizers.get(optimizer)
        if checked.step and checked is not self.optimizer:
            raise ValueError(
                "optimizer: expected one that has not trained another model, because its moments are that model's"
            )
        loss = losses.get(loss)
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a list, got {metrics!r}; write metrics=[{metrics!r}]")
        names = [checks.choice("metrics", metric, METRICS) for metric in metrics or ()]
        self._require_softmax(loss)
        self.optimizer, self.loss, self.metrics = checked, loss, names

    def _require_softmax(self, loss: str) -> None:
        activation = self._head().activation
        if activation != "softmax":
            raise ValueError(f"loss: {loss} needs a last layer with activation='softmax', got {activation!r}")

    def _compiled(self) -> optimizers.Adam:
        if self.optimizer is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss, metrics) first")
        self._require_softmax(self.loss)  # a layer may have been added since
        return self.optimizer

    def _labels(self, name: str, y: Any, rows: int) -> Array:
        classes = self.output_shape[-1]
        assert classes is not None
        labels = losses.check_labels(name, y, rows, classes)
        return labels if labels.ndim == 1 else labels.astype(self.dtype)

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Array, Array] | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        verbose: int = 1,
    ) -> training.History:
        """Train.

        Parameters
        ----------
        x : ndarray (N, T, F)
            float32 or float64, used as it is; or uint8, an image's bytes, of which each batch is divided by 255.
        y : ndarray
            Integer labels (N,), or one-hot or other targets (N, C).
        epochs, batch_size : int
        validation_data : (x, y), optional
            Evaluated after each epoch.
        validation_split : float
            Instead, keep back this fraction, the last samples before shuffling.
        shuffle : bool
            Whether to draw a new order for each epoch.
        verbose : {0, 1, 2}
            Nothing; a progress bar on a terminal and a line an epoch elsewhere; a line an epoch.

        Returns
        -------
        History

        Raises
        ------
        FloatingPointError
            A loss became NaN or infinite. The message gives epoch and batch; the weights are those before it.
        KeyboardInterrupt
            Ctrl-C. The weights are those after the last whole batch, and usable.
        ValueError, TypeError
            An argument does not fit; no weight has changed its value then.
        """
        optimizer = self._compiled()
        epochs = checks.integer("epochs", epochs, least=0)
        batch_size = checks.integer("batch_size", batch_size, least=1)
        split = checks.number("validation_split", validation_split, least=0, below=1)
        shuffle = checks.flag("shuffle", shuffle)
        if verbose not in (0, 1, 2):
            raise ValueError(f"verbose: expected 0, 1 or 2, got {verbose!r}")
        samples = self._prepare("x", x, decide_dtype=True)
        labels = self._labels("y", y, len(samples))
        validation = None
        if validation_data is not None:
            if split:
                raise ValueError("validation_split: expected 0 because validation_data is given, got both")
            validation = self._validation(validation_data)
        elif split:
            kept = int(len(samples) * (1 - split) + 1e-9)  # 10 * (1 - 0.9) is a rounding below 1
            validation = (Samples("x", x[kept:], self._input_shape, self.dtype), labels[kept:])
            samples, labels = Samples("x", x[:kept], self._input_shape, self.dtype), labels[:kept]
        if len(samples) == 0 or (validation is not None and len(validation[0]) == 0):
            part = "" if split == 0 else f" after validation_split={split:g}"
            raise ValueError(f"x: expected at least one sample to train and to validate on, got {len(x)}{part}")
        history = training.History(epochs, batch_size, len(samples))
        training.fit(
            self,
            optimizer,
            samples,
            labels,
            epochs=epochs,
            batch_size=batch_size,
            metrics=self.metrics,
            validation=validation,
            shuffle=self._generator if shuffle else None,
            history=history,
            progress=Progress(verbose, epochs, len(samples)),
        )
        return history

    def _validation(self, data: Any) -> tuple[Samples, Array]:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise TypeError("validation_data: expected a pair (x, y), got something else")
        samples = self._prepare("validation_data[0]", data[0])
        return samples, self._labels("validation_data[1]", data[1], len(samples))

    def train_on_batch(self, x: Array, y: Array) -> list[float]:
        """One update on one batch; returns its loss before the update, and the metrics."""
        optimizer = self._compiled()
        samples = self._prepare("x", x, decide_dtype=True)
        labels = self._labels("y", y, len(samples))
        if len(samples) == 0:
            raise ValueError("x: expected at least one sample, got 0")
        totals = training.Totals(self.metrics)
        totals.add(training.train_step(self, optimizer, samples.batch(slice(None)), labels))
        return list(totals.values().values())

    def evaluate(self, x: Array, y: Array, *, batch_size: int = 128) -> list[float]:
        """Loss and metrics, in the order loss, accuracy.

        Parameters
        ----------
        x, y : ndarray
            As in `fit`.
        batch_size : int
            Affects memory and speed only.
        """
        self._compiled()
        batch_size = checks.integer("batch_size", batch_size, least=1)
        samples = self._prepare("x", x)
        labels = self._labels("y", y, len(samples))
        if len(samples) == 0:
            raise ValueError("x: expected at least one sample, got 0")
        return list(training.evaluate(self, samples, labels, batch_size, self.metrics).values())

    def predict(self, x: Array, *, batch_size: int = 128) -> Array:
        """Outputs (N, ...) for samples (N, ...), batch by batch, so that only the result grows with N.

        A sample's output has the same bits whatever the batch size.
        """
        batch_size = checks.integer("batch_size", batch_size, least=1)
        self._require_built()
        samples = self._prepare("x", x)
        # An axis that any size will do for is the steps', which a sequence of layers keeps.
        shape = [x.shape[1] if size is None else size for size in self.output_shape[1:]]
        result = np.empty((len(samples), *shape), self.dtype)
        for rows in training.batches(len(samples), batch_size):
            result[rows] = self.forward(samples.batch(rows))
        return result

    # --- Weights ---------------------------------------------------------------------------------------------

    def get_weights(self) -> list[Array]:
        """Copies of all weights in Keras' order: for a GRU kernel, recurrent_kernel, bias; for a Dense kernel, bias."""
        self._require_built()
        return [array.copy() for layer in self.layers for array in layer.weights.values()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Copy in what `get_weights` returns; all shapes are checked before anything changes."""
        self._require_built()
        targets = [(f"{layer.name}/{name}", array) for layer in self.layers for name, array in layer.weights.items()]
        if len(weights) != len(targets):
            raise ValueError(f"weights: expected {len(targets)} arrays, got {len(weights)}")
        arrays = [np.asarray(given) for given in weights]
        for (name, target), array in zip(targets, arrays, strict=True):
            if array.shape != target.shape:
                raise ValueError(f"weights: expected shape {target.shape} for {name}, got {array.shape}")
            if not np.can_cast(array.dtype, target.dtype, "same_kind"):
                raise TypeError(f"weights: expected {target.dtype} for {name}, got {array.dtype}")
        for (_, target), array in zip(targets, arrays, strict=True):
            target[...] = array

    def count_params(self) -> int:
        """The number of trainable parameters."""
        self._require_built()
        return sum(layer.count_params() for layer in self.layers)

    def summary(self) -> None:
        """Print the layers, their output shapes and their numbers of parameters."""
        self._require_built()
        rows = [
            (f"{layer.name} ({type(layer).__name__})", str(shape), f"{layer.count_params():,}")
            for layer, shape in zip(self.layers, self._output_shapes, strict=True)
        ]
        header = ("Layer (type)", "Output shape", "Parameters")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        print(f'Model "{self.name}", {self.dtype}')
        for row in (header, *rows):
            print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}")
        total = self.count_params()
        print(f"Total: {total:,} parameters, {total * self.dtype.itemsize:,} bytes")

    # --- Files -----------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file: topology, weights, and if compiled how it is trained and how far.

        `load_model` gives a model that predicts, and trains on, with the same bits. The file carries a checksum and is
        replaced atomically: whatever happens, `path` holds the old model or the new one.

        Parameters
        ----------
        path : path
            By convention ``*.safetensors``.
        """
        self._require_built()
        checkpoint.save(path, *self._to_checkpoint())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made as files are: the layers' arrays must be views of the copy's own memory."""
        return Sequential._from_checkpoint, self._to_checkpoint()

    def _to_checkpoint(self) -> tuple[dict[str, Any], dict[str, Array]]:
        tensors = {
            f"layers/{layer.name}/{name}": array for layer in self.layers for name, array in layer.weights.items()
        }
        config: dict[str, Any] = {
            "fastgru_version": __version__,
            "name": self.name,
            "dtype": str(self.dtype),
            "input_shape": self._input_shape,
            "layers": [
                {"class_name": type(layer).__name__, "name": layer.name, "config": layer.get_config()}
                for layer in self.layers
            ],
            "generator": self._generator.bit_generator.state,
        }
        if self.optimizer is not None:
            step, moments = self.optimizer.get_state()
            config["compile"] = {
                "optimizer": {"class_name": "Adam", "config": self.optimizer.get_config(), "step": step},
                "loss": self.loss,
                "metrics": self.metrics,
            }
            tensors |= {f"optimizer/{name}": array for name, array in moments.items()}
        return config, tensors

    @classmethod
    def _from_checkpoint(cls, config: dict[str, Any], tensors: dict[str, Array]) -> Sequential:
        model = cls(dtype=config["dtype"], name=config["name"])
        for entry in config["layers"]:
            layer = LAYERS[entry["class_name"]](**entry["config"], name=entry["name"])
            layer.name = entry["name"]
            if any(layer.name == other.name for other in model.layers):
                raise ValueError(f"it has two layers called {layer.name!r}")
            model.layers.append(layer)
        if config["input_shape"]:
            rows, *sizes = config["input_shape"]
            if rows is not None:
                raise ValueError(f"its input_shape fixes the batch to {rows!r}")
            model._infer_shapes((None, *checks.shape("input_shape", sizes)))
        # The file's tensors bound what is allocated: shapes are compared before any memory is taken.
        expected = {
            f"layers/{layer.name}/{name}": shape
            for layer in model.layers
            if model.built
            for name, shape in layer.weight_shapes().items()
        }
        found = {name: array for name, array in tensors.items() if name.startswith("layers/")}
        if {name: array.shape for name, array in found.items()} != expected:
            raise ValueError("its weights do not fit its configuration")
        if any(array.dtype != model.dtype for array in tensors.values()):
            raise ValueError(f"its weights are not {model.dtype} as its configuration says")
        if model.built:
            model._allocate(initialize=False)
        for layer in model.layers:
            for name, array in layer.weights.items():
                array[...] = found[f"layers/{layer.name}/{name}"]
        model._generator.bit_generator.state = config["generator"]
        if "compile" in config:
            choices = config["compile"]
            model.compile(optimizers.Adam(**choices["optimizer"]["config"]), choices["loss"], choices["metrics"])
            moments = {name: tensors[f"optimizer/{name}"] for name in ("m", "v") if f"optimizer/{name}" in tensors}
            if len(moments) == 1 or any(array.shape != model.parameters.shape for array in moments.values()):
                raise ValueError("its optimizer's moments do not fit its weights")
            assert model.optimizer is not None
            model.optimizer.set_state(choices["optimizer"]["step"], moments)
        return model


def load_model(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that `Sequential.save` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    Sequential
        Compiled as the saved one was; it goes on with the same bits.

    Raises
    ------
    ModelFileError
        The file is no fastgru model, or is damaged or inconsistent; the message says what is wrong.
    OSError
        The file cannot be read.
    """
    config, tensors = checkpoint.load(path)
    try:
        return Sequential._from_checkpoint(config, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        # Whatever a hostile configuration trips over, the file is what is wrong.
        raise ModelFileError(f"{os.fspath(path)}: not a model that this version can make: {error!r}") from None


def _unused_name(kind: str, names: set[str]) -> str:
    number = 0
    while (name := kind if number == 0 else f"{kind}_{number}") in names:
        number += 1
    return name


def _fits(shape: Shape, declared: Shape) -> bool:
    return len(shape) == len(declared) and all(d in (None, s) for s, d in zip(shape, declared, strict=True))
