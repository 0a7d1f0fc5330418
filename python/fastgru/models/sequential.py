"""Sequential: layers in a row that are compiled, trained, evaluated, used and saved."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import formats, losses, optimizers
from fastgru import metrics as _metrics
from fastgru._support import checks, usage
from fastgru._support.files import check_path
from fastgru._support.representation import as_call
from fastgru._support.samples import Samples, lengths_of
from fastgru._support.seeding import new_generator
from fastgru._training import loop
from fastgru._training.data import ArraySet, StreamSet, Unchecked
from fastgru._training.options import FitOptions
from fastgru._training.preparation import Preparation, prepare
from fastgru.callbacks import dispatch
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import Assumption, AssumptionWarning, ModelDescription, list_assumptions
from fastgru.layers import Layer
from fastgru.layers.base import copy_weights
from fastgru.models import saving
from fastgru.models.compilation import Compilation
from fastgru.models.network import Network

Array = NDArray[Any]

#: All attributes of a `Sequential`; others belong to a user's subclass.
_ATTRIBUTES = frozenset(("_network", "_compilation", "_usage", "_run", "stop_training"))
#: Attribute that cannot be assigned -> what to do instead.
_READ_ONLY = {
    **dict.fromkeys(("optimizer", "loss", "metrics"), "set it by compile(optimizer, loss, metrics)"),
    **dict.fromkeys(("parameters", "gradient"), "write into the array: model.{name}[...] = values"),
    **dict.fromkeys(("built", "input_shape", "output_shape"), "set it by build(input_shape)"),
    "layers": "append one by add(layer)",
    "dtype": "pass dtype= to the constructor",
    "stateful": "pass stateful=True to a GRU",
}


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
    parameters : ndarray (P,)
        All weights in one array, of which the weights of the layers are views. Empty until the model is built.
    gradient : ndarray (P,)
        The gradients of `parameters`, with views in the layers.
    optimizer : Optimizer or None
    loss : Loss or None
    metrics : list of Metric
        What `compile` chose.
    stop_training : bool
        Set by a callback, it ends the training after the epoch.

    Notes
    -----
    Several threads may call `predict`, `evaluate`, `get_weights` and `save` at once, unless a layer is stateful. All
    other calls need the model for themselves and raise RuntimeError while another thread uses it: give each thread its
    own copy (`copy.deepcopy`).

    Callbacks, data streams, losses and metrics may call `predict`, `evaluate`, `save`, `get_weights`, `set_weights`,
    `load_weights` and `reset_states` while `fit` runs. Stateful layers begin such a `predict` or `evaluate` without
    states, and training goes on with its own. `fit`, `train_on_batch`, `compile` and `add` raise RuntimeError there.

    Examples
    --------
    >>> model = Sequential([layers.GRU(64, input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
    >>> model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    >>> history = model.fit(x, y, epochs=10)
    """

    def __init__(
        self, layers: Iterable[Layer] | None = None, *, dtype: str | None = None, name: str = "sequential"
    ) -> None:
        self._take(*saving.make_parts(dtype, name))
        if isinstance(layers, Layer):
            raise TypeError(f"layers: expected a list of layers, got a single {type(layers).__name__}")
        for layer in layers or ():
            self.add(layer)

    def _take(self, network: Network, compilation: Compilation) -> None:
        """Set all attributes; the constructor then adds the layers."""
        self._network = network
        self._compilation = compilation
        self._usage = usage.Usage()
        self._run: loop.Run | None = None  # while it is trained
        self.stop_training = False

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """The arguments in a `repr` that are not the attributes of the same name."""
        dtype = self._network.decided_dtype
        return {"layers": self.layers or None, "dtype": None if dtype is None else dtype.name}

    if not TYPE_CHECKING:  # which would take every attribute for one that exists, and can be assigned

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except AttributeError:
                if name not in _READ_ONLY:
                    raise
                remedy = _READ_ONLY[name].format(name=name)
                raise AttributeError(
                    f"{name}: expected no assignment because the model sets it; {remedy}, or give an attribute of your "
                    f"own another name"
                ) from None

        def __getattr__(self, name: str) -> Any:
            if "_network" not in vars(self) and not name.startswith("__"):
                raise AttributeError(
                    f"{type(self).__name__}: expected a model whose constructor has run, got {name} before that; call "
                    f"super().__init__() first"
                )
            return super().__getattribute__(name)  # raises the error that led here

    # --- What the model is ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model's name, which files hold."""
        return self._network.name

    @name.setter
    def name(self, value: str) -> None:
        self._network.name = value

    @property
    def layers(self) -> list[Layer]:
        """The layers, from the first to the last."""
        return self._network.layers

    @property
    def parameters(self) -> Array:
        """All weights (P,), which the layers' arrays are views of; empty until the model is built."""
        return self._network.parameters

    @property
    def gradient(self) -> Array:
        """The gradient (P,) of `parameters`, from the last batch trained on."""
        return self._network.gradient

    @property
    def optimizer(self) -> optimizers.Optimizer | None:
        """What `compile` chose, or None."""
        return self._compilation.optimizer

    @property
    def loss(self) -> losses.Loss | None:
        """What `compile` chose, or None."""
        return self._compilation.loss

    @property
    def metrics(self) -> list[_metrics.Metric]:
        """What `compile` chose."""
        return self._compilation.metrics

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights, float32 where nothing has decided yet."""
        return self._network.dtype

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._network.built

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """With the batch axis, None where any size will do; empty until the model is built."""
        return self._network.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """With the batch axis; empty until the model is built."""
        return self._network.output_shape

    @property
    def stateful(self) -> bool:
        """Whether each row of a batch goes on from the states of the same row of the batch before it."""
        return self._network.stateful

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that place."""
        if (name is None) == (index is None):
            raise ValueError("name, index: expected one of the two, got " + ("neither" if name is None else "both"))
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(f"index: expected one of {len(self.layers)} layers, got {index}")
            return self.layers[index]
        return {layer.name: layer for layer in self.layers}[
            checks.choice("name", name, [layer.name for layer in self.layers])
        ]

    def count_params(self) -> int:
        """The number of trainable parameters."""
        self._network.require_built()
        return sum(layer.count_params() for layer in self.layers)

    def summary(self) -> None:
        """Print the layers, their output shapes and their numbers of parameters."""
        self._network.require_built()
        rows = [
            (f"{layer.name} ({type(layer).__name__})", str(shape), f"{layer.count_params():,}")
            for layer, shape in zip(self.layers, self._network.shapes[1:], strict=True)
        ]
        header = ("Layer (type)", "Output shape", "Parameters")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        print(f'Model "{self.name}", {self.dtype}')
        for row in (header, *rows):
            print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}")
        total = self.count_params()
        print(f"Total: {total:,} parameters, {total * self.dtype.itemsize:,} bytes")

    # --- Layers, weights and states ------------------------------------------------------------------------------

    @usage.alone("add changes the layers", outermost=True)
    def add(self, layer: Layer) -> None:
        """Append a layer. If the first one knows its ``input_shape``, the weights are made at once."""
        self._network.add(layer)

    @usage.alone("build makes the weights", outermost=True)
    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for inputs of that shape, batch axis included.

        Data given to `fit` does it as well, for sequences of any length; of the data's length, where a `Flatten` has
        to know it.
        """
        self._network.build(input_shape)

    def get_weights(self) -> list[Array]:
        """Copies of all weights in Keras' order: for a GRU kernel, recurrent_kernel, bias; for a Dense kernel, bias."""
        self._network.require_built()
        with self._usage.call("get_weights"):
            return self._network.get_weights()

    @usage.alone("set_weights changes the weights")
    def set_weights(self, weights: Sequence[Array]) -> None:
        """Copy in what `get_weights` returns; all shapes are checked before anything changes."""
        self._network.require_built()
        targets = [(f"{layer.name}/{name}", array) for layer in self.layers for name, array in layer.weights.items()]
        copy_weights(targets, weights)

    def get_states(self) -> dict[str, Array]:
        """What stateful layers carry from batch to batch, by ``layer/name``."""
        return self._network.get_states()

    @usage.alone("set_states changes the states")
    def set_states(self, states: dict[str, Array]) -> None:
        """Carry on with what `get_states` returned."""
        self._network.set_states(states)

    @usage.alone("reset_states changes the states")
    def reset_states(self) -> None:
        """Forget what stateful layers carry from batch to batch."""
        self._network.reset_states()

    # --- Training ------------------------------------------------------------------------------------------------

    @usage.alone("compile replaces the optimizer", outermost=True)
    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss = "categorical_crossentropy",
        metrics: Iterable[str | _metrics.Metric] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            "adam", "adamw", "sgd", "rmsprop", or one of `fastgru.optimizers`.
        loss : str or Loss
            "categorical_crossentropy" or "sparse_categorical_crossentropy" (either takes integer labels as well as
            one-hot targets), "binary_crossentropy", "mean_squared_error" ("mse"), "mean_absolute_error" ("mae"),
            "huber", or one of `fastgru.losses`. Cross-entropies are computed from what comes before the last layer's
            softmax or sigmoid, unless they say ``from_logits=True``.
        metrics : iterable, optional
            "accuracy", "top_k_accuracy", "binary_accuracy", "mae", "mse", "f1_score", or some of `fastgru.metrics`,
            objects that no other model is compiled with.

        A model with a loss, metric or schedule of a class of your own cannot be saved: a file holds names, no code.
        """
        self._compilation.choose(self._network, optimizer, loss, metrics)

    @usage.alone("fit changes the weights", outermost=True)
    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: int | str = 1,
        *,
        lengths: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        validation_data: Any = None,
        validation_split: Any = 0.0,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        callbacks: Any = None,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> loop.History:
        """Train.

        Parameters
        ----------
        x : ndarray (N, T, F), or iterable
            float32 or float64, used as it is; or uint8, an image's bytes, of which each batch is divided by 255. May be
            memory-mapped. Or, without y, something that gives the batches of an epoch when it is iterated over:
            ``(x, y)``, ``(x, y, sample_weight)`` or dicts with ``x``, ``y``, ``lengths``, ``sample_weight``.
        y : ndarray
            Targets as the loss takes them: integer labels (N,), or one for each step (N, T); one-hot or other targets
            (N, C); numbers of the output's shape.
        batch_size : int
            None means 32.
        epochs : int
        verbose : {0, 1, 2, "auto"}
            Nothing; a progress bar on a terminal and a line an epoch elsewhere; a line an epoch. "auto" is 1.
        lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            How many steps of each sequence count, or a mask that says so. What stands after them is padding, neither
            looked at nor computed.
        sample_weight : ndarray (N,), or (N, T) for outputs at each step, optional
            Factors of the losses; their mean is still taken over all samples, as in Keras. Metrics are not weighted.
        class_weight : dict, optional
            Factors of the losses by class.
        validation_data : tuple, dict or iterable, optional
            Evaluated after each epoch; (x, y), (x, y, sample_weight), a dict with x, y, lengths, sample_weight, or an
            iterable of such batches. Stateful layers begin it without states, and training goes on with its own.
        validation_steps : int, optional
            How many of an iterable's batches to evaluate; all if not given.
        validation_split : float, or ndarray (K,) of integers
            Instead, hold back this fraction: the last samples, before shuffling. UserWarning if a class is missing from
            either part. Or hold back the samples with these indices; no array is copied.
        validation_batch_size : int, optional
            `batch_size` if not given; affects memory and speed only.
        shuffle : bool
            Whether to draw a new order for each epoch.
        steps_per_epoch : int, optional
            How many of an iterable's batches make an epoch; all if not given.
        callbacks : list of Callback, optional
            See `fastgru.callbacks`.
        resume_from : path, optional
            A file that `callbacks.ModelCheckpoint` wrote during a call of `fit` with the same data and callbacks. The
            model takes on what was saved, and training goes on until `epochs` are done: bit for bit as if it had not
            been interrupted. An iterable is begun anew, and with `steps_per_epoch` the batches of earlier epochs are
            drawn and dropped. A learning rate that is a number is the file's; a schedule must be the same.

        Returns
        -------
        History

        Raises
        ------
        FloatingPointError
            A loss or a gradient became NaN or infinite, or the update would have made a weight so. The message gives
            epoch and batch, and the sample where one is the cause. Weights, optimizer, states, random numbers and
            metrics are those before that batch.
        RuntimeError
            Another call is using the model; see the notes of the class.
        KeyboardInterrupt
            Ctrl-C. The weights are those after the last whole batch, and usable.
        ValueError, TypeError
            An argument does not fit; no weight has changed its value then, but by an iterable's batches before the one
            that does not fit. The model's dtype and shapes are then as they were, too.
        """
        network, compilation = self._network, self._compilation
        optimizer, loss = compilation.connect(network)
        options = FitOptions(
            loss=loss,
            epochs=epochs,
            batch_size=32 if batch_size is None else batch_size,
            verbose=verbose,
            shuffle=shuffle,
            class_weight=class_weight,
            steps_per_epoch=steps_per_epoch,
            validation_split=validation_split,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            resume_from=resume_from,
        )
        sets = prepare(network, loss, Unchecked(x, y, lengths, sample_weight), validation_data, options)
        history = loop.History(options.epochs, options.batch_size, sets.training.count)
        told = self._callbacks(callbacks, history.params, validated=sets.validation is not None)
        # Metrics of its own: whoever evaluates in the midst of an epoch uses the model's.
        tally = loop.Tally(network, loss, copy.deepcopy(compilation.metrics))
        required = options.required_to_resume(sets.training)
        write = functools.partial(saving.write_training, network, compilation)
        run = loop.Run(tally, history, told, network.generator, required, write)
        saved, form = None, sets.form
        if resume_from is not None:
            saved = saving.read_training(resume_from, network, compilation, run, form)
            form = saved.network.form
        if form is not None:
            network.settle(form, decide_dtype=True)
        validate = None
        if sets.validation is not None:
            validate = functools.partial(
                self._evaluate, sets.validation, options.rows_to_validate, compilation.metrics, apart=True
            )
        with self._at_work(run):
            # As in Keras: on_train_begin starts a callback anew, a resumed state comes after it.
            told.tell("on_train_begin", {})
            told.require_saveable()
            if saved is not None:
                saving.go_on_from(saved, network, compilation, run)
            run.write_due()
            loop.fit(network, loss, optimizer, sets.training, run, options, validate)
            run.tell("on_train_end", {})
        return history

    def _callbacks(self, given: Any, params: dict[str, Any], *, validated: bool) -> dispatch.Callbacks:
        told = dispatch.Callbacks(dispatch.check(given), self, params)
        logs = ["loss", *(metric.name for metric in self.metrics)]
        told.require_possible([*logs, *(f"val_{name}" for name in logs)] if validated else logs)
        if told.write_files():
            saving.require_own_layers(self._network)
            saving.require_own_classes(self._compilation)
        return told

    @contextlib.contextmanager
    def _at_work(self, run: loop.Run) -> Iterator[None]:
        """While `run` trains the model."""
        self._run = run
        try:
            yield
        finally:
            self._run = None

    def save_training(self, path: str | os.PathLike[str]) -> None:
        """Write the model with the state of the training at work, for ``fit(..., resume_from=path)``.

        `callbacks.ModelCheckpoint` calls it. The file is written when all callbacks have been told of what this one
        is told now, so that it holds what each made of it; nothing is written of an epoch that `TerminateOnNaN` ends.

        Raises
        ------
        RuntimeError
            `fit` is not at work.
        """
        if self._run is None:
            raise RuntimeError("the model is not being trained: save_training is for callbacks of fit")
        self._run.save(path)

    @usage.alone("train_on_batch changes the weights", outermost=True)
    def train_on_batch(self, x: Array, y: Any, *, lengths: Any = None, sample_weight: Any = None) -> list[float]:
        """One update on one batch; returns its loss before the update, and the metrics.

        Raises
        ------
        FloatingPointError
            As from `fit`; nothing has changed then.
        """
        network = self._network
        optimizer, loss = self._compilation.connect(network)
        batch = Preparation(network, loss).batch(Unchecked(x, y, lengths, sample_weight))
        tally = loop.Tally(network, loss, self._compilation.metrics)
        loop.train_step(network, loss, optimizer, batch, tally)
        return list(tally.values().values())

    # --- Evaluation and prediction -------------------------------------------------------------------------------

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 128,
        verbose: Any = 0,
        *,
        lengths: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics, in the order of `compile`.

        Parameters
        ----------
        x, y, lengths, sample_weight
            As in `fit`.
        batch_size : int
            Affects memory and speed only; None means 128.
        verbose
            Taken for the sake of programs written for Keras; nothing is printed.
        return_dict : bool
            Return them by name.

        Returns
        -------
        list of float, or dict of str to float
        """
        del verbose
        network = self._network
        with self._usage.call("evaluate", alone=network.why_alone()) as call:
            _, loss = self._compilation.connect(network)
            batch_size = checks.integer("batch_size", 128 if batch_size is None else batch_size, least=1)
            data, form = Preparation(network, loss).set_of(Unchecked(x, y, lengths, sample_weight), decide_dtype=False)
            if form is not None:
                network.settle(form, decide_dtype=False)
            if data.count == 0:
                raise ValueError("x: expected at least one sample, got 0")
            # Another evaluation may be counting with the model's metrics: in another thread, or around this one.
            metrics = self.metrics if call.first and not call.nested else copy.deepcopy(self.metrics)
            found = self._evaluate(data, batch_size, metrics, apart=call.nested)
        return found if checks.flag("return_dict", return_dict) else list(found.values())

    def _evaluate(
        self, data: ArraySet | StreamSet, batch_size: int, metrics: Sequence[_metrics.Metric], *, apart: bool
    ) -> dict[str, float]:
        """Loss and metrics by name; `apart` from the states of the call around it."""
        assert self.loss is not None
        with self._network.with_own_states() if apart else contextlib.nullcontext():
            return loop.evaluate(self._network, self.loss, data, batch_size, metrics)

    def predict(self, x: Array, batch_size: int | None = 128, verbose: Any = 0, *, lengths: Any = None) -> Any:
        """Outputs (N, ...) for samples (N, ...), batch by batch, so that only the result grows with N.

        A sample's output has the same bits whatever the batch size and the padding.

        Parameters
        ----------
        x : ndarray (N, ...)
        batch_size : int
            Affects memory and speed only; a stateful layer needs batches of one size. None means 128.
        verbose
            Taken for the sake of programs written for Keras; nothing is printed.
        lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            As in `fit`.

        Returns
        -------
        ndarray, or tuple of ndarray if the last layer returns several
        """
        del verbose
        batch_size = checks.integer("batch_size", 128 if batch_size is None else batch_size, least=1)
        network = self._network
        network.require_built()
        with self._usage.call("predict", alone=network.why_alone()) as call:
            if not call.nested:
                return _predict(network, x, batch_size, lengths)
            with network.with_own_states():
                return _predict(network, x, batch_size, lengths)

    # --- Files and copies ----------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, format: str | None = None, include_optimizer: bool = True) -> None:
        """Write the model to a file: topology, weights, and if compiled how it is trained and how far.

        `load_model` gives a model that predicts, and trains on, with the same bits. The file carries a checksum and is
        replaced atomically: whatever happens, `path` holds the old model or the new one.

        In other frameworks' files stands what those can say; what they cannot is an error that names it, and nothing
        is written.

        Parameters
        ----------
        path : path
            ``*.safetensors`` is this package's own kind. Other endings are other frameworks': see `fastgru.formats`.
        format : str, optional
            The file format, whatever the name: one of the formats that `fastgru.formats` lists.
        include_optimizer : bool
            Whether to write how the model is trained and how far. Without, it must be compiled again to be trained on;
            and other frameworks need not have its optimizer, loss and metrics.

        Raises
        ------
        ValueError
            The ending is not known, or the model has something that this kind of file cannot say.
        ImportError
            The kind of file needs an extra that is not installed.
        """
        self._network.require_built()
        with self._usage.call("save"):
            saving.write(path, format, self._network, self._compilation, compiled=include_optimizer)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights alone, for a model made in the same way, here or in Keras.

        Parameters
        ----------
        path : path
            ``*.weights.h5`` as Keras 3 writes it; ``*.h5`` as Keras 2 did.
        """
        self._network.require_built()
        check_path(path)
        if not os.fspath(path).lower().endswith((".h5", ".hdf5")):
            raise ValueError(f"path: expected a name that ends in .weights.h5 or .h5, got {os.fspath(path)}")
        with self._usage.call("save_weights"):
            formats.write_weights(path, saving.describe_weights(self._network, self._compilation))

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Take the weights from a file of `save_weights`, or of Keras: of weights alone or of a model.

        As in Keras, layers are found by their order, not by their names.

        Parameters
        ----------
        path : path
            ``*.weights.h5``, ``*.keras`` or ``*.h5``.

        Raises
        ------
        ModelFileError
            The file is damaged, or its weights are not those of a model like this one, which stays as it is then.
        """
        self._network.require_built()
        with self._usage.call("load_weights"):
            description = saving.describe_weights(self._network, self._compilation)
        found = formats.read_weights(path, description.layers)
        with reading(path):
            self.set_weights(list(found.values()))

    def describe(self) -> ModelDescription:
        """The model in the words that file formats understand; its arrays are copies."""
        self._network.require_built()
        with self._usage.call("describe"):
            return saving.describe(self._network, self._compilation)

    @classmethod
    def from_description(cls, description: ModelDescription) -> Self:
        """The model that a file described.

        Raises
        ------
        ValueError, TypeError
            The description contradicts itself, or wants what this package does not have.
        """
        model = cls(dtype=description.dtype, name=description.name)
        saving.take_description(description, model._network, model._compilation)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made as files are: the layers' arrays must be views of the copy's own memory.

        What a class of the user's own has besides goes with it; attributes that are layers are the copy's layers.
        """
        new_generator()  # unused, but it advances the seed's sequence: models made after a copy keep their weights
        own = {name: value for name, value in vars(self).items() if name not in _ATTRIBUTES}
        places = {
            name: place for name, value in own.items() for place, layer in enumerate(self.layers) if value is layer
        }
        others = {name: value for name, value in own.items() if name not in places}
        with self._usage.call("a copy"):
            config, tensors = saving.to_checkpoint(self._network, self._compilation)
            # A pickle reads the arrays after this has returned.
            copies = {name: array.copy() for name, array in tensors.items()}
        return _remake, (type(self), config, copies, places, others)


def _remake(
    cls: type[Sequential],
    config: dict[str, Any],
    tensors: dict[str, Array],
    places: dict[str, int],
    others: dict[str, Any],
) -> Sequential:
    """What `Sequential.__reduce__` took apart, without calling the constructor of a class of the user's own."""
    model = cls.__new__(cls)
    model._take(*saving.from_checkpoint(config, tensors))
    vars(model).update(others | {name: model.layers[place] for name, place in places.items()})
    return model


def _predict(network: Network, x: Array, batch_size: int, lengths: Any) -> Any:
    form = network.form_for("x", x, decide_dtype=False)
    samples = Samples("x", x, form.input_shape, form.dtype, tokens=network.takes_tokens)
    lengths = lengths_of("lengths", lengths, x, tokens=network.takes_tokens)
    network.check_values("x", samples, lengths)
    results: list[Array] = []
    several = False
    for begin in range(0, max(len(samples), 1), batch_size):
        rows = slice(begin, begin + batch_size)
        y = network.forward(samples.batch(rows), lengths=None if lengths is None else lengths[rows])
        several = isinstance(y, tuple)
        parts = y if isinstance(y, tuple) else (y,)
        if not results:
            results = [np.empty((len(samples), *part.shape[1:]), part.dtype) for part in parts]
        for result, part in zip(results, parts, strict=True):
            result[rows] = part
    return tuple(results) if several else results[0]


def read_model(
    path: str | os.PathLike[str], *, compile: bool = True, format: str | None = None, **options: Any
) -> tuple[Sequential, tuple[Assumption, ...]]:
    """`load_model`, which returns what had to be assumed instead of warning about it."""
    kind = formats.kind_of_file(path) if format is None else checks.choice("format", format, formats.KINDS)
    if kind == "fastgru":
        if options:
            raise TypeError(f"{min(options)}: expected no options because the file is fastgru's own, got some")
        config, tensors = native.load(path)
        model = Sequential.__new__(Sequential)
        model._take(*saving.from_file(path, config if compile else {**config, "compile": None}, tensors))
        return model, ()
    description = formats.read(path, kind, compile=compile, **options)
    with reading(path, "not a model that this package can make"):
        return Sequential.from_description(description), description.assumptions


def load_model(
    path: str | os.PathLike[str], *, compile: bool = True, format: str | None = None, **options: Any
) -> Sequential:
    """Read a model that `Sequential.save` wrote, or another framework.

    Parameters
    ----------
    path : path
        What kind of file it is shows in its contents: see `fastgru.formats`.
    compile : bool
        Whether the model shall be compiled as the saved one was. A file whose optimizer, loss or metrics are not known
        here can still be loaded without.
    format : str, optional
        The file format, one of those that `fastgru.formats` lists, for files whose contents do not show it.
    **options
        For a PyTorch state_dict, what the file does not contain: ``pooling``, ``return_sequences``, ``activations``
        and ``order``. The page "File formats" describes them.

    Warns
    -----
    AssumptionWarning
        The file does not say all that decides the model's outputs, which is so of PyTorch's state_dicts, and `options`
        do not either. The warning lists what was assumed, and the options that say the same or something else.

    Returns
    -------
    Sequential
        Compiled as the saved one was, where the file says so. One that `Sequential.save` wrote goes on with the same
        bits.

    Raises
    ------
    ModelFileError
        The file is no model, is damaged or inconsistent, or has something that this package does not; the message says
        what.
    ImportError
        The kind of file needs an extra that is not installed.
    OSError
        The file cannot be read.
    """
    model, assumptions = read_model(path, compile=compile, format=format, **options)
    warn_of(path, assumptions)
    return model


def warn_of(path: str | os.PathLike[str], assumptions: Sequence[Assumption]) -> None:
    """Warn the caller's caller of what was assumed of a file, if anything was."""
    if assumptions:
        message = "\n".join([f"{os.fspath(path)}:", *list_assumptions(assumptions)])
        warnings.warn(AssumptionWarning(message, assumptions), stacklevel=3)
