"""Sequential: layers in a row that are compiled, trained, evaluated, used and saved."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from fastgru._training.sample_weights import check_class_weight
from fastgru.callbacks import dispatch
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import ModelDescription
from fastgru.layers import InputLayer, Layer, from_options
from fastgru.layers.variables import Variable, copy_weights
from fastgru.models import saving
from fastgru.models.compilation import Compilation, refuse_weights
from fastgru.models.network import Network
from fastgru.models.summary import summary_lines

if TYPE_CHECKING:
    from fastgru.formats.keras.topology import Topology

Array = NDArray[Any]

#: All attributes of a `Sequential`; others belong to a user's subclass.
_ATTRIBUTES = frozenset(("_network", "_compilation", "_usage", "_run", "stop_training"))
#: Attribute that cannot be assigned -> what to do instead.
_READ_ONLY = {
    **dict.fromkeys(("optimizer", "loss", "metrics"), "set it by compile(optimizer, loss, metrics=metrics)"),
    **dict.fromkeys(("parameters", "gradient"), "write into the array: model.{name}[...] = values"),
    **dict.fromkeys(("weights", "trainable_weights", "non_trainable_weights"), "call set_weights(weights)"),
    **dict.fromkeys(("variables", "trainable_variables", "non_trainable_variables"), "call set_weights(weights)"),
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
        As by `add`; the first element may be a `fastgru.Input`.
    dtype : {"float32", "float64"}, optional
        What the weights are and the model computes in. If not given, float32, until the first `fit` on float64 data
        makes it float64: data stays as it is given.
    trainable : bool
        False freezes all weights, whatever the layers say.
    name : str, optional
        "sequential" if not given.

    Attributes
    ----------
    layers : list of Layer
    weights, trainable_weights, non_trainable_weights : list of Variable
    trainable : bool
        Whether training changes the weights. Assigning it sets it for all layers. A layer with ``trainable = False`` is
        frozen: its weights, their optimizer state and regularizers take no part in training. The first training after
        `compile` decides which layers are frozen, as in Keras.
    parameters, gradient : ndarray (P,)
        All weights and their gradients, flat; the layers' arrays are views of them. Empty until the model is built.
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
        self,
        layers: Iterable[Layer | InputLayer] | None = None,
        trainable: bool = True,
        name: str | None = None,
        *,
        dtype: str | None = None,
    ) -> None:
        self._take(*saving.make_parts(dtype, "sequential" if name is None else name))
        self._network.trainable = checks.flag("trainable", trainable)
        if isinstance(layers, (Layer, InputLayer)):
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
        return {
            "layers": self.layers or None,
            "name": None if self.name == "sequential" else self.name,
            "dtype": None if dtype is None else dtype.name,
        }

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

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights. Assigning it sets it for all layers."""
        return self._network.trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._network.set_trainable(value)

    @property
    def weights(self) -> list[Variable]:
        """The weights of all layers, in Keras' order; empty until the model is built."""
        return [variable for layer in self.layers for variable in layer.weights]

    @property
    def variables(self) -> list[Variable]:
        """The same as `weights`."""
        return self.weights

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes."""
        return [variable for variable in self.weights if self.trainable and variable.trainable]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training does not change."""
        return [variable for variable in self.weights if not (self.trainable and variable.trainable)]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The same as `non_trainable_weights`."""
        return self.non_trainable_weights

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
        """Return the number of values in all weights, trainable or not."""
        self._network.require_built()
        return sum(layer.count_params() for layer in self.layers)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], object] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: tuple[str, str] | None = None,
    ) -> None:
        """Print the layers, the shapes of their outputs and their numbers of parameters.

        Parameters
        ----------
        line_length : int, optional
            The least width of the table in characters.
        positions, expand_nested
            Ignored.
        print_fn : callable, optional
            Called with the whole text instead of `print`.
        show_trainable : bool
            Whether to show which layers are trainable.
        layer_range : (str, str), optional
            The names of the first and of the last layer to show.
        """
        del positions, expand_nested
        self._network.require_built()
        first, last = 0, len(self.layers)
        if layer_range is not None:
            begin, end = layer_range
            first, last = (self.layers.index(self.get_layer(name)) for name in (begin, end))
            last += 1
        trainable = sum(variable.size for variable in self.trainable_weights)
        lines = summary_lines(
            self.name,
            self.layers[first:last],
            self._network.shapes[1 + first : 1 + last],
            (trainable, self.count_params() - trainable),
            self.dtype.itemsize,
            line_length=line_length,
            show_trainable=checks.flag("show_trainable", show_trainable),
        )
        (print if print_fn is None else print_fn)("\n".join(lines))

    # --- Layers, weights and states ------------------------------------------------------------------------------

    @usage.alone("add changes the layers", outermost=True)
    def add(self, layer: Layer | InputLayer) -> None:
        """Append a layer. If the first one knows its ``input_shape``, the weights are made at once.

        A `fastgru.Input` as the first element gives the next layer that shape; it is not among `layers`.
        """
        self._network.add(layer)

    @usage.alone("pop changes the layers", outermost=True)
    def pop(self) -> Layer:
        """Remove the last layer and return it, with a copy of its weights. It cannot be added to a model again."""
        return self._network.pop()

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
        targets = [(f"{layer.name}/{name}", array) for layer in self.layers for name, array in layer.parameters.items()]
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
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: str | losses.Loss | None = None,
        loss_weights: None = None,
        metrics: Iterable[str | _metrics.Metric] | None = None,
        weighted_metrics: None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configure the model for training.

        Parameters
        ----------
        optimizer : str or Optimizer
            "adam", "adamw", "sgd", "rmsprop", or one of `fastgru.optimizers`.
        loss : str or Loss, optional
            `fit`, `evaluate`, `train_on_batch` and `test_on_batch` need one.
            "categorical_crossentropy" or "sparse_categorical_crossentropy" (either takes integer labels as well as
            one-hot targets), "binary_crossentropy", "mean_squared_error" ("mse"), "mean_absolute_error" ("mae"),
            "huber", or one of `fastgru.losses`. Cross-entropies are computed from what comes before the last layer's
            softmax or sigmoid, unless they say ``from_logits=True``.
        metrics : iterable, optional
            "accuracy", "top_k_accuracy", "binary_accuracy", "mae", "mse", "f1_score", or some of `fastgru.metrics`,
            objects that no other model is compiled with.
        loss_weights, weighted_metrics
            Not supported: must be None.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Ignored. Programs for Keras may pass them; they change no result there either.

        Notes
        -----
        As in Keras, the first training after `compile` decides which weights are trainable, until `compile` is called
        again. Call it after changing ``trainable`` of a layer or of the model.

        A model with a loss, metric or schedule of a class of your own cannot be saved: a file holds names, no code.
        """
        del run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
        refuse_weights(loss_weights, weighted_metrics)
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
        network.warn_of_changed_trainable()
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
    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
        *,
        lengths: Any = None,
    ) -> Any:
        """Update the weights once, on one batch.

        Parameters
        ----------
        x, y, sample_weight, class_weight, lengths
            As in `fit`, for one batch.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss of the batch before the update, with metrics ``[loss, *metrics]``.

        Raises
        ------
        FloatingPointError
            As from `fit`. The model has not changed then.
        """
        return_dict = checks.flag("return_dict", return_dict)
        network = self._network
        optimizer, loss = self._compilation.connect(network)
        prepared = Preparation(network, loss, check_class_weight(class_weight, loss))
        batch = prepared.batch(Unchecked(x, y, lengths, sample_weight))
        network.warn_of_changed_trainable()
        tally = loop.Tally(network, loss, self._compilation.metrics)
        loop.train_step(network, loss, optimizer, batch, tally)
        return _as_returned(tally.values(), return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False, *, lengths: Any = None
    ) -> Any:
        """Return the loss and the metrics of one batch.

        Parameters
        ----------
        x, y, sample_weight, lengths
            As in `fit`, for one batch.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            As `train_on_batch` returns them.
        """
        return self.evaluate(
            x,
            y,
            batch_size=max(checks.rows("x", x), 1),
            verbose=0,
            sample_weight=sample_weight,
            return_dict=return_dict,
            lengths=lengths,
        )

    def predict_on_batch(self, x: Any, *, lengths: Any = None) -> Any:
        """Return the outputs for one batch, computed in one piece; `predict` describes the arguments."""
        return self.predict(x, batch_size=max(checks.rows("x", x), 1), verbose=0, lengths=lengths)

    def __call__(self, x: Any, training: bool = False, mask: Any = None, *, lengths: Any = None) -> Any:
        """Return the outputs for one batch. The first call makes the weights of a model that has none.

        Parameters
        ----------
        x : ndarray (N, ...)
        training : bool
            Whether dropout drops values.
        mask, lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            As `lengths` in `fit`. `mask` is Keras' name. Pass one of them.

        Returns
        -------
        ndarray, or tuple of ndarray if the last layer returns several
            New arrays.
        """
        if mask is not None and lengths is not None:
            raise ValueError("mask: expected None because lengths are given, got both")
        lengths = mask if lengths is None else lengths
        network = self._network
        training = checks.flag("training", training)
        reason = "a pass in training writes into the layers" if training else network.why_alone()
        with self._usage.call("a call", alone=reason, outermost=training) as call:
            if not network.built:
                network.settle(network.form_for("x", x, decide_dtype=True), decide_dtype=True)
            with network.with_own_states() if call.nested else contextlib.nullcontext():
                return network.call(x, lengths, training=training)

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
        float, list of float, or dict of str to float
            The loss, with metrics ``[loss, *metrics]``.
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
        return _as_returned(found, return_dict=checks.flag("return_dict", return_dict))

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

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: None = None,
        *,
        format: str | None = None,
        include_optimizer: bool = True,
    ) -> None:
        """Write the model to a file: topology, weights, and if compiled how it is trained and how far.

        `load_model` gives a model that predicts, and trains on, with the same bits. The file carries a checksum and is
        replaced atomically: whatever happens, `filepath` holds the old model or the new one.

        In other frameworks' files stands what those can say; what they cannot is an error that names it, and nothing
        is written.

        Parameters
        ----------
        filepath : path
            ``*.safetensors`` is this package's own kind. Other endings are other frameworks': see `fastgru.formats`.
        overwrite : bool
            Whether to replace an existing file. If False, an existing file raises FileExistsError.
        zipped
            Not supported: must be None. The format decides.
        format : str, optional
            The kind of file, whatever its name: a key of `fastgru.formats.KINDS`.
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
        if zipped is not None:
            raise ValueError(f"zipped: expected None because the format decides, got {zipped!r}; pass format= instead")
        _require_free(filepath, overwrite)
        self._network.require_built()
        with self._usage.call("save"):
            saving.write(filepath, format, self._network, self._compilation, compiled=include_optimizer)

    def save_weights(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, max_shard_size: None = None
    ) -> None:
        """Write the weights alone, for a model made in the same way, here or in Keras.

        Parameters
        ----------
        filepath : path
            ``*.safetensors`` holds the weights by name: ``gru/kernel``. ``*.weights.h5`` is Keras 3's format, ``*.h5``
            Keras 2's.
        overwrite : bool
            Whether to replace an existing file. If False, an existing file raises FileExistsError.
        max_shard_size
            Not supported: must be None. The weights are written to one file.
        """
        if max_shard_size is not None:
            raise ValueError("max_shard_size: expected None because weights are written to one file, got a size")
        _require_free(filepath, overwrite)
        self._network.require_built()
        if formats.weights_kind(filepath) == "fastgru":
            with self._usage.call("save_weights"):
                native.save_weights(filepath, self._network.views(self.parameters))
            return
        with self._usage.call("save_weights"):
            formats.write_weights(filepath, saving.describe_weights(self._network, self._compilation))

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Take the weights from a file of `save_weights`, or of Keras: of weights alone or of a model.

        Weights in ``*.safetensors`` are found by their names. In Keras' files, layers are found by their order.

        Parameters
        ----------
        filepath : path
            ``*.safetensors``, ``*.weights.h5``, ``*.keras`` or ``*.h5``.
        skip_mismatch : bool
            Not supported: must be False. All weights are loaded or none.

        Raises
        ------
        ModelFileError
            The file is damaged, or its weights have other names or shapes. The model does not change.
        """
        if checks.flag("skip_mismatch", skip_mismatch):
            raise ValueError(
                "skip_mismatch: expected False because all weights are loaded or none, got True; call set_weights of "
                "the layers that fit"
            )
        self._network.require_built()
        if formats.weights_kind(filepath, reading=True) == "fastgru":
            found = native.load_weights(filepath)
            with reading(filepath):
                self._set_named(found)
            return
        with self._usage.call("load_weights"):
            description = saving.describe_weights(self._network, self._compilation)
        stored = formats.read_weights(filepath, description.layers)
        with reading(filepath):
            self.set_weights(list(stored.values()))

    @usage.alone("load_weights changes the weights")
    def _set_named(self, weights: Mapping[str, Array]) -> None:
        """Copy in weights by ``layer/weight``, if all of them are there and fit."""
        targets = self._network.views(self.parameters)
        wrong = [f"no {name}" for name in targets if name not in weights]
        wrong += [f"an unexpected {name}" for name in weights if name not in targets]
        wrong += [
            f"{name} of shape {weights[name].shape} instead of {target.shape}"
            for name, target in targets.items()
            if name in weights and weights[name].shape != target.shape
        ]
        if wrong:
            raise ValueError(f"expected the weights of this model, got {', '.join(wrong)}")
        copy_weights(list(targets.items()), [weights[name] for name in targets])

    # --- Configurations ------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the layers and the shape of the input in Keras 3's form, without weights and without training.

        ``keras.Sequential.from_config(model.get_config())`` makes Keras' model, where Keras has all layers.
        """
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        return configs.model_to_config(saving.describe_layers(self._network))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: None = None) -> Self:
        """Return the model that a configuration describes, with new weights; it is not compiled.

        Parameters
        ----------
        config : dict
            What ``get_config`` of a Sequential model returned, here or in Keras 3.
        custom_objects
            Not supported: must be None or empty.
        """
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        refuse_custom_objects(custom_objects)
        return cls._from_topology(configs.model_from_config(config))

    @classmethod
    def _from_topology(cls, topology: Topology) -> Self:
        model = cls(dtype=topology.dtype, name=topology.name)
        for entry in topology.layers:
            model.add(from_options(entry.class_name, entry.config, name=entry.name))
        if topology.input_shape is not None:
            model.build((None, *checks.shape("input_shape", topology.input_shape)))
        return model

    def to_json(self) -> str:
        """Return `get_config` as text, for `fastgru.models.model_from_json` and ``keras.models.model_from_json``."""
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        return configs.model_to_json(saving.describe_layers(self._network))

    # --- Descriptions and copies ---------------------------------------------------------------------------------

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


def refuse_custom_objects(custom_objects: Any) -> None:
    """Raise if a user gave classes for what is read."""
    if custom_objects:
        raise ValueError(
            f"custom_objects: expected None because configurations and files hold the names of fastgru's classes only, "
            f"got {', '.join(map(str, custom_objects))}; load a model with compile=False and call compile with your "
            f"own losses and metrics"
        )


def _require_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise if something exists at `path` and must not be overwritten."""
    if not checks.flag("overwrite", overwrite):
        check_path(path)
        if os.path.lexists(path):
            raise FileExistsError(
                f"{os.fspath(path)}: expected no file because of overwrite=False, got one; pass overwrite=True"
            )


def _as_returned(values: dict[str, float], *, return_dict: bool) -> Any:
    """Return loss and metrics in the form that Keras' methods return: a number if there are no metrics."""
    if return_dict:
        return values
    numbers = list(values.values())
    return numbers if len(numbers) > 1 else numbers[0]


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
