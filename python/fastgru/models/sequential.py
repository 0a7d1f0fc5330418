"""The Sequential model."""

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
from fastgru._support import checks, inputs, usage
from fastgru._support.files import check_path, trial_name
from fastgru._support.representation import as_call
from fastgru._support.seeding import new_generator
from fastgru._training import loop
from fastgru._training.data import ArraySet, Form, StreamSet, Unchecked
from fastgru._training.options import FitOptions, check_verbose
from fastgru._training.preparation import Preparation, Sets, prepare
from fastgru._training.progress import describe
from fastgru._training.sample_weights import check_class_weight
from fastgru.callbacks import History, dispatch
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import ModelDescription
from fastgru.layers import InputLayer, Layer, from_options
from fastgru.layers.variables import Variable, copy_weights
from fastgru.models import prediction, saving
from fastgru.models.compilation import Compilation, refuse_weights
from fastgru.models.network import Network
from fastgru.models.summary import summary_lines

if TYPE_CHECKING:
    from fastgru.formats.keras.topology import Topology

Array = NDArray[Any]

#: All instance attributes of a `Sequential`. Any others were set by a user or a subclass.
_ATTRIBUTES = frozenset(("_network", "_compilation", "_usage", "_run", "stop_training", "history"))
#: Attribute of Keras' models -> what to use instead.
_ELSEWHERE = {
    "export": "use save('model.onnx')",
    "get_metrics_result": "use evaluate(x, y, return_dict=True)",
    "inputs": "use input_shape",
    "outputs": "use output_shape",
    "quantize": "weights are float32 or float64",
}
#: Attribute that cannot be assigned -> remedy for the error message.
_READ_ONLY = {
    **dict.fromkeys(("optimizer", "loss", "metrics"), "set it with compile(optimizer, loss, metrics=metrics)"),
    **dict.fromkeys(("parameters", "gradient"), "write into the array: model.{name}[...] = values"),
    **dict.fromkeys(("weights", "trainable_weights", "non_trainable_weights"), "call set_weights(weights)"),
    **dict.fromkeys(("variables", "trainable_variables", "non_trainable_variables"), "call set_weights(weights)"),
    **dict.fromkeys(("built", "input_shape", "output_shape"), "set it with build(input_shape)"),
    "layers": "append a layer with add(layer)",
    "dtype": "pass dtype= to the constructor",
    "stateful": "pass stateful=True to a GRU",
}


class Sequential:
    """A linear stack of layers, with the interface of Keras' ``Sequential``.

    Parameters
    ----------
    layers : iterable of Layer, optional
        The layers, from the first to the last. The first element may be a `fastgru.Input`. `add` appends more.
    trainable : bool, default True
        False freezes all weights, regardless of the layers' ``trainable``.
    name : str, optional
        The name of the model; "sequential" if not given.
    dtype : {"float32", "float64"}, optional
        The dtype of the weights and of all computations; float32 if not given. Input of any real dtype is converted to
        it batch by batch.

    Attributes
    ----------
    layers : list of Layer
        The layers, without an `Input`.
    weights : list of Variable
        The weights of all layers, in Keras' order. Empty until the model is built.
    trainable_weights : list of Variable
        The weights that training changes.
    non_trainable_weights : list of Variable
        The weights that training does not change.
    trainable : bool
        Whether training changes the weights. Assigning it sets it for all layers. A layer with ``trainable = False`` is
        frozen: training does not change its weights and optimizer state, and ignores its regularizers. As in Keras, the
        first training call after `compile` fixes which layers are frozen.
    parameters : ndarray (P,)
        All weights in one array. The weights of the layers are views of it. Empty until the model is built.
    gradient : ndarray (P,)
        The gradient of `parameters`. The gradients of the layers are views of it.
    optimizer : Optimizer or None
        The optimizer passed to `compile`.
    loss : Loss or None
        The loss passed to `compile`.
    metrics : list of Metric
        The metrics passed to `compile`.
    stop_training : bool
        Set it to True in a callback to end `fit` after the current epoch or batch, as in Keras.
    history : callbacks.History or None
        The result of the last call of `fit`.

    Notes
    -----
    *Data.* All methods that take data accept NumPy arrays, nested lists, and arrays of other libraries: PyTorch tensors
    on the CPU, and objects with ``__array__`` or ``__dlpack__``, such as those of JAX, TensorFlow and pandas. Pass
    sequences of different lengths as a list of arrays (T_i, F), or (T_i,) for tokens. They are padded batch by batch.
    Targets and weights for each step are then also lists of arrays.

    *Batches.* Pass an object that can be iterated over once per epoch, such as a `torch.utils.data.DataLoader` or a
    `tf.data.Dataset`. An object with ``__len__`` and ``__getitem__``, such as a `keras.utils.PyDataset`, also works. A
    batch is ``(x, y)``, ``(x, y, sample_weight)``, or a dict with the keys ``x``, ``y``, ``lengths`` and
    ``sample_weight``. The third element is used as lengths, with a warning, if it contains integers above 1 and none
    above the number of steps.

    *Threads.* Several threads may call `predict`, `evaluate`, `get_weights` and `save` at the same time, unless a layer
    is stateful. Methods that change the model need exclusive access: they raise RuntimeError while another thread uses
    it. Give each thread its own copy (`copy.deepcopy`).

    *Callbacks.* While `fit` runs, callbacks, data iterables, losses and metrics may call `predict`, `evaluate`, `save`,
    `get_weights`, `set_weights`, `load_weights` and `reset_states`. Stateful layers start such a `predict` or
    `evaluate` without states; training then continues with its own states. `fit`, `train_on_batch`, `compile` and `add`
    raise RuntimeError there.

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
        self._run: loop.Run | None = None  # the current training run, while `fit` runs
        self.stop_training = False
        self.history: History | None = None

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """Return the arguments in a `repr` that differ from the attributes of the same name."""
        dtype = self._network.dtype.name
        return {
            "layers": self.layers or None,
            "name": None if self.name == "sequential" else self.name,
            "dtype": None if dtype == "float32" else dtype,
        }

    if not TYPE_CHECKING:  # a type checker would otherwise accept every attribute

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except AttributeError:
                if name not in _READ_ONLY:
                    raise
                remedy = _READ_ONLY[name].format(name=name)
                raise AttributeError(
                    f"{name}: expected no assignment because the model sets it; {remedy}, or rename your own attribute"
                ) from None

        def __getattr__(self, name: str) -> Any:
            if "_network" not in vars(self) and not name.startswith("__"):
                raise AttributeError(
                    f"{type(self).__name__}: expected super().__init__() before any use of the model, got no call; "
                    f"call super().__init__() first in __init__"
                )
            if name in _ELSEWHERE:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; {_ELSEWHERE[name]}")
            return super().__getattribute__(name)  # raises the original AttributeError

    # --- Properties ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the model, which saved files contain."""
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
        """All weights (P,). The layers' arrays are views of it. Empty until the model is built."""
        return self._network.parameters

    @property
    def gradient(self) -> Array:
        """The gradient (P,) of `parameters` in the last training batch."""
        return self._network.gradient

    @property
    def optimizer(self) -> optimizers.Optimizer | None:
        """The optimizer that was passed to `compile`, or None."""
        return self._compilation.optimizer

    @property
    def loss(self) -> losses.Loss | None:
        """The loss that was passed to `compile`, or None."""
        return self._compilation.loss

    @property
    def metrics(self) -> list[_metrics.Metric]:
        """The metrics that were passed to `compile`."""
        return self._compilation.metrics

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights."""
        return self._network.dtype

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._network.built

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the input with the batch axis; None means any size. Empty until the model is built."""
        return self._network.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of the output with the batch axis; None means any size. Empty until the model is built."""
        return self._network.output_shape

    @property
    def stateful(self) -> bool:
        """Whether each row of a batch starts from the final state of the same row of the previous batch."""
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
        """Return the layer with that name, or at that index.

        Parameters
        ----------
        name : str, optional
        index : int, optional
            An index into `layers`; negative indices count from the end. Pass one of `name` and `index`.

        Returns
        -------
        Layer

        Raises
        ------
        ValueError
            No layer has that name or index.
        """
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
        """Print a table of the layers, their output shapes and their numbers of parameters.

        Parameters
        ----------
        line_length : int, optional
            The minimum width of the table in characters.
        positions, expand_nested
            Ignored.
        print_fn : callable, optional
            Called once with the whole text, instead of `print`.
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
        """Append a layer.

        If the first layer has an ``input_shape``, the weights of the new layer are created immediately. Otherwise
        `build` or the first data creates them. Adding a layer resets the optimizer state.

        Parameters
        ----------
        layer : Layer or InputLayer
            A layer that belongs to no other model. A `fastgru.Input`, allowed as the first element only, sets the
            ``input_shape`` of the next layer. It does not become an element of `layers`.

        Raises
        ------
        ValueError
            The layer does not fit the previous one, or belongs to a model. The model does not change.
        """
        self._network.add(layer)

    @usage.alone("pop changes the layers", outermost=True)
    def pop(self) -> Layer:
        """Remove and return the last layer.

        The layer keeps a copy of its weights. It cannot be added to a model again.
        """
        return self._network.pop()

    @usage.alone("build creates the weights", outermost=True)
    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for an input shape.

        If the model is not built, `fit` builds it for the shape of its data. The number of steps may then still vary,
        unless a layer such as `Flatten` needs a fixed number.

        Parameters
        ----------
        input_shape : tuple of int or None
            The shape with the batch axis, such as (None, None, 28); None means any size.
        """
        self._network.build(input_shape)

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, layer by layer, in Keras' order.

        The order is kernel, recurrent_kernel, bias for a GRU layer, and kernel, bias for a Dense layer.
        """
        self._network.require_built()
        with self._usage.call("get_weights"):
            return self._network.get_weights()

    @usage.alone("set_weights changes the weights")
    def set_weights(self, weights: Sequence[Array]) -> None:
        """Copy arrays into the weights.

        Parameters
        ----------
        weights : list of array_like
            Arrays in the order and with the shapes of `get_weights`. They are converted to the model's dtype.

        Raises
        ------
        ValueError, TypeError
            The number of arrays, a shape or a dtype is wrong. No weight changes.
        """
        self._network.require_built()
        targets = [(f"{layer.name}/{name}", array) for layer in self.layers for name, array in layer.parameters.items()]
        copy_weights(targets, weights)

    def get_states(self) -> dict[str, Array]:
        """Return the states of stateful layers by ``layer/name``, without copying. Empty if there are none."""
        return self._network.get_states()

    @usage.alone("set_states changes the states")
    def set_states(self, states: dict[str, Array]) -> None:
        """Set the states of stateful layers to those that `get_states` returned."""
        self._network.set_states(states)

    @usage.alone("reset_states changes the states")
    def reset_states(self) -> None:
        """Clear the states of stateful layers: the next batch starts from zeros."""
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
            "adam", "adamw", "sgd", "rmsprop", or an object of `fastgru.optimizers`.
        loss : str or Loss, optional
            A name, an object of `fastgru.losses`, or a function of y_true and y_pred. Names are
            "categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy", "mse", "mae", "huber"
            and others. Both categorical cross-entropies accept integer labels and one-hot targets. Cross-entropies are
            computed from the logits, that is, before the last layer's softmax or sigmoid. `fit`, `evaluate`,
            `train_on_batch` and `test_on_batch` need a loss.
        metrics : iterable, optional
            Names such as "accuracy", "top_k_accuracy", "binary_accuracy", "mae", "mse" or "f1_score", objects of
            `fastgru.metrics`, or functions of y_true and y_pred. Each object can belong to one model only.
        loss_weights, weighted_metrics
            Not supported: must be None.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Ignored. They are accepted for compatibility with Keras and do not change results there either.

        Notes
        -----
        As in Keras, the first training call after `compile` fixes which weights are trainable, until `compile` is
        called again. Call `compile` after changing ``trainable`` of a layer or of the model.

        A model compiled with a custom loss, metric or schedule can only be saved with ``include_optimizer=False``,
        because files contain names of classes and no code.
        """
        del run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
        refuse_weights(loss_weights, weighted_metrics)
        self._compilation.choose(self._network, optimizer, loss, metrics)

    @usage.alone("fit changes the weights", outermost=True)
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: Any = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        *,
        lengths: Any = None,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like (N, T, F), list of array_like (T_i, F), or iterable
            The samples: an array, which may be memory-mapped, or a list of sequences. If the first layer is an
            `Embedding`, they are integers (N, T) or (T_i,). Alternatively, without y, an iterable of batches; see the
            notes of the class. Each batch is converted to the model's dtype. Values are not scaled; see
            `layers.Rescaling`.
        y : array_like
            The targets, in a form that the loss supports: integer labels (N,), or (N, T) for each step; one-hot targets
            (N, C) or (N, T, C); or numbers with the shape of the output. If x is a list of sequences, targets for each
            step are a list of arrays (T_i,) or (T_i, C).
        batch_size : int
            The number of samples per update of the weights; None means 32. Ignored if x is an iterable of batches.
        epochs : int
            The number of the last epoch, counted from 1. `fit` trains ``epochs - initial_epoch`` epochs.
        verbose : {0, 1, 2, "auto"}
            0 prints nothing; 1 shows a progress bar on a terminal and prints a line per epoch elsewhere; 2 prints a
            line per epoch. "auto" is 1.
        callbacks : list of Callback, optional
            See `fastgru.callbacks`.
        validation_split : float, or ndarray (K,) of integers
            A fraction: the last samples, before shuffling, are used for validation instead of training. Warns if a
            class is missing from either part. Or the indices of the validation samples; the data is not copied.
        validation_data : tuple, dict or iterable, optional
            Data to evaluate after each epoch: (x, y), (x, y, sample_weight), a dict with the keys x, y, lengths and
            sample_weight, or an iterable of such batches. Stateful layers start the validation without states.
            Training then continues with its own states.
        shuffle : bool
            Whether to shuffle before each epoch: the samples, or the batches of an object with ``__getitem__`` and
            ``__len__``. Ignored for other iterables. Use ``shuffle=False`` with stateful layers.
        class_weight : dict of int to float, optional
            Factors of the losses of samples, by class.
        sample_weight : array_like (N,), or (N, T) for outputs at each step, optional
            Factors of the samples' losses. As in Keras, the sum of the weighted losses is divided by the number of
            samples, not by the sum of the weights. Metrics are not weighted.
        initial_epoch : int
            The number of the first epoch, counted from 0, for callbacks, logs and learning rate schedulers. It does not
            affect weights and optimizer state. Leave it out with `resume_from`, because the file contains this number.
        steps_per_epoch : int, optional
            The number of batches of an iterable per epoch; all if not given.
        validation_steps : int, optional
            The number of batches of a validation iterable to evaluate; all if not given.
        validation_batch_size : int, optional
            `batch_size` if not given; affects memory and speed only.
        validation_freq : int, or list of int
            An integer n: validate after every n-th epoch. A list: validate after these epochs, counted from 1.
            Callbacks that monitor a validation metric ignore the other epochs.
        lengths : array_like (N,) of integers, or (N, T) of bool, optional
            The number of valid steps of each sequence, or a mask that is True for these steps. Values after the end of
            a sequence are ignored, and no time is spent on them.
        resume_from : path, optional
            A ``.safetensors`` file that `callbacks.ModelCheckpoint` wrote during a call of `fit` with the same data and
            callbacks. Training continues up to epoch `epochs`. The result is bit-identical to that of an uninterrupted
            training run. An iterable is read from its beginning; with `steps_per_epoch`, the batches of earlier epochs
            are skipped. A constant learning rate is taken from the file; a schedule must be the same.

        Returns
        -------
        callbacks.History
            Loss and metrics of each epoch. If `callbacks` contains a History, this object is filled and returned.

        Raises
        ------
        FloatingPointError
            A loss, a gradient or an updated weight would be NaN or infinite. The message names the epoch and the batch,
            and the sample if one is the cause. The model is in the state before that batch: weights, optimizer state,
            layer states, random numbers and metrics.
        RuntimeError
            The model is not compiled, or another call is using it; see the notes of the class.
        KeyboardInterrupt
            Ctrl-C was pressed. The weights are those after the last completed batch.
        ValueError, TypeError
            An argument is invalid. The model does not change, except by the batches of an iterable that precede an
            invalid batch.

        Examples
        --------
        >>> stop = callbacks.EarlyStopping(patience=2)
        >>> history = model.fit(x, y, epochs=10, validation_split=0.1, callbacks=[stop])
        >>> val_losses = history.history["val_loss"]
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
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_split=validation_split,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            resume_from=resume_from,
        )
        sets = prepare(network, loss, Unchecked(x, y, lengths, sample_weight), validation_data, options)
        told, history = self._callbacks_of_fit(callbacks, options, sets)
        # Copies, because a callback that evaluates during an epoch uses the model's metrics.
        tally = loop.Tally(network, loss, copy.deepcopy(compilation.metrics))
        required = options.required_to_resume(sets.training)
        write = functools.partial(saving.write_training, network, compilation)
        run = loop.Run(tally, history, told, network.generator, required, write, options.initial_epoch)
        saved, form = self._read_saved(run, sets, resume_from)
        if form is not None:
            network.settle(form)
        network.warn_of_changed_trainable()
        validate = None
        if sets.validation is not None:
            validate = functools.partial(
                self._evaluate, sets.validation, options.rows_to_validate, compilation.metrics, told, apart=True
            )
        with self._at_work(run):
            # on_train_begin resets a callback, as in Keras, so a saved state is restored after it.
            told.tell("on_train_begin", {})
            if network.built:
                run.require_saveable()
            if saved is not None:
                saving.go_on_from(saved, network, compilation, run)
            run.write_due()
            loop.fit(network, loss, optimizer, sets.training, run, options, validate)
            run.tell("on_train_end", dict(run.last_logs))
        self.history = history
        return history

    def _callbacks_of_fit(self, given: Any, options: FitOptions, sets: Sets) -> tuple[dispatch.Callbacks, History]:
        """Return the callbacks of a training run and their `History`, which is added if there is none."""
        chosen = dispatch.check(given)
        history = next((callback for callback in chosen if isinstance(callback, History)), None)
        if history is None:
            history = History()
            chosen = [*chosen, history]
        params = {
            "verbose": options.verbose,
            "epochs": options.epochs,
            "steps": sets.training.steps(options.batch_size),
            "batch_size": options.batch_size,
            "samples": sets.training.count,
        }
        told = dispatch.Callbacks(chosen, self, params)
        logs = ["loss", *(metric.name for metric in self.metrics)]
        validated = [f"val_{name}" for name in logs] if sets.validation is not None else []
        told.require_possible([*logs, *validated], [] if options.validates_always else validated)
        if told.resumable():
            saving.require_own_layers(self._network)
            saving.require_own_classes(self._compilation)
        return told, history

    def _read_saved(
        self, run: loop.Run, sets: Sets, resume_from: str | os.PathLike[str] | None
    ) -> tuple[saving.SavedTraining | None, Form | None]:
        """Return the training run to resume, or None, and the form of its model."""
        backup = run.callbacks.find_backup()
        path = backup if resume_from is None else resume_from
        if path is None:
            return None, sets.form
        if backup is not None and resume_from is not None:
            raise ValueError(
                f"resume_from: expected None because BackupAndRestore has found {backup}, got "
                f"{os.fspath(resume_from)}; delete {backup} or leave resume_from out"
            )
        try:
            saved = saving.read_training(path, self._network, self._compilation, run, sets.form, sets.training.dtype)
        except ValueError as error:
            if backup is None:
                raise
            raise type(error)(f"{error}; delete {backup} to train from the beginning") from None
        return saved, saved.network.form

    @contextlib.contextmanager
    def _at_work(self, run: loop.Run) -> Iterator[None]:
        """Set the current training run within the block."""
        self._run = run
        try:
            yield
        finally:
            self._run = None

    def save_training(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of the training run to a file, for ``fit(..., resume_from=path)``.

        Call it in a callback; `callbacks.ModelCheckpoint` does. The file is written after all callbacks have been
        called for the same epoch or batch, so it contains their final states. No file is written for an epoch that
        `TerminateOnNaN` ends.

        Parameters
        ----------
        path : path
            The file to write, in fastgru's own format.

        Raises
        ------
        RuntimeError
            `fit` is not running.
        """
        if self._run is None:
            raise RuntimeError(
                "save_training: expected a running fit because it saves the state of fit, got none; call it in a "
                "callback"
            )
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
        """Update the weights once, with one batch.

        Parameters
        ----------
        x, y, sample_weight, class_weight, lengths
            As in `fit`, for one batch.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss of the batch before the update; with metrics the list ``[loss, *metrics]``. The values are those of
            this batch alone; Keras returns means over the calls since `reset_metrics`.

        Raises
        ------
        FloatingPointError
            As in `fit`. The model does not change.
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

    @usage.alone("reset_metrics changes the metrics")
    def reset_metrics(self) -> None:
        """Reset the metrics. `fit`, `evaluate`, `train_on_batch` and `test_on_batch` do so themselves."""
        for metric in self.metrics:
            metric.reset_state()

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
        """Return the outputs for one batch, computed in one piece. See `predict` for the arguments."""
        return self.predict(x, batch_size=max(checks.rows("x", x), 1), verbose=0, lengths=lengths)

    def __call__(self, x: Any, training: bool | None = None, mask: Any = None, *, lengths: Any = None) -> Any:
        """Return the outputs for one batch. If the model has no weights yet, the call creates them.

        Parameters
        ----------
        x : ndarray (N, ...)
        training : bool, optional
            Whether to apply dropout; False if not given.
        mask, lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            As `lengths` in `fit`. `mask` is Keras' name for it. Pass at most one of them.

        Returns
        -------
        ndarray, or tuple of ndarray if the last layer returns several
            New arrays.
        """
        if mask is not None and lengths is not None:
            raise ValueError("mask: expected None because lengths are given, got both")
        lengths = mask if lengths is None else lengths
        network = self._network
        training = training is not None and checks.flag("training", training)
        reason = "a training pass writes into the layers" if training else network.why_alone()
        with self._usage.call("a call", alone=reason, outermost=training) as call:
            x = network.as_samples("x", inputs.as_array("x", x))
            if not network.built:
                network.settle(network.form_for(x))
            with network.with_own_states() if call.nested else contextlib.nullcontext():
                return network.call(x, lengths, training=training)

    # --- Evaluation and prediction -------------------------------------------------------------------------------

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        lengths: Any = None,
    ) -> Any:
        """Compute the loss and the metrics over a data set.

        Parameters
        ----------
        x, y, sample_weight, lengths
            As in `fit`.
        batch_size : int
            The number of samples computed at once. Affects memory and speed only, unless `steps` is given. None means
            128, or with `steps` 32, as in Keras.
        verbose : {0, 1, 2, "auto"}
            1 and 2 print a line with the result; 0 and "auto" print nothing.
        steps : int, optional
            The number of batches to evaluate; all if not given.
        callbacks : list of Callback, optional
            Their methods ``on_test_...`` are called.
        return_dict : bool
            Whether to return the values by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss; with metrics the list ``[loss, *metrics]``; with `return_dict` a dict by name.

        Raises
        ------
        RuntimeError
            The model is not compiled, or another call is using it.
        """
        network = self._network
        printed = verbose != "auto" and check_verbose(verbose) > 0
        with self._usage.call("evaluate", alone=network.why_alone()) as call:
            _, loss = self._compilation.connect(network)
            batch_size = _check_batch_size(batch_size, steps)
            given = Unchecked(x, y, lengths, sample_weight)
            data, form = Preparation(network, loss, evaluates=True).set_of(given, steps, steps_name="steps")
            if form is not None:
                network.settle(form)
            if data.count == 0:
                raise ValueError("x: expected at least one sample, got 0")
            # Copies if another evaluation, in another thread or around this one, uses the model's metrics.
            metrics = self.metrics if call.first and not call.nested else copy.deepcopy(self.metrics)
            told = self._callbacks(callbacks, verbose, data, batch_size)
            found = self._evaluate(data, batch_size, metrics, told, apart=call.nested, steps=steps)
        if printed:
            print(f"Evaluation: {describe(found)}")
        return _as_returned(found, return_dict=checks.flag("return_dict", return_dict))

    def _callbacks(
        self, given: Any, verbose: int | str, data: ArraySet | StreamSet | None, batch_size: int
    ) -> dispatch.Callbacks:
        """Return the callbacks of an evaluation or a prediction."""
        chosen = dispatch.check(given)
        steps, count = (None, None) if data is None else (data.steps(batch_size), data.count)
        params = {"verbose": verbose, "epochs": 1, "steps": steps, "batch_size": batch_size, "samples": count}
        return dispatch.Callbacks(chosen, self, params)

    def _evaluate(
        self,
        data: ArraySet | StreamSet,
        batch_size: int,
        metrics: Sequence[_metrics.Metric],
        callbacks: dispatch.Callbacks,
        *,
        apart: bool,
        steps: int | None = None,
    ) -> dict[str, float]:
        """Return loss and metrics by name; with `apart`, layer states of an outer call are kept separate."""
        assert self.loss is not None
        with self._network.with_own_states() if apart else contextlib.nullcontext():
            return loop.evaluate(self._network, self.loss, data, batch_size, metrics, callbacks, steps)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        lengths: Any = None,
    ) -> Any:
        """Compute the outputs (N, ...) for samples (N, ...), batch by batch.

        The output of a sample does not depend on the batch size and the padding: it is bit-identical for all of them.
        Only the memory for the result grows with N.

        Parameters
        ----------
        x : array_like (N, ...), list of array_like (T_i, F), or iterable
            Samples as in `fit`, or an iterable of batches: x, (x, y), (x, y, sample_weight), or dicts with the key x
            and optionally lengths. Targets and weights are ignored.
        batch_size : int
            The number of samples computed at once. Affects memory and speed only, unless `steps` is given. Stateful
            layers need batches of the same size. None means 128, or with `steps` 32, as in Keras.
        verbose : {0, 1, 2, "auto"}
            Ignored; nothing is printed.
        steps : int, optional
            The number of batches to predict; all if not given.
        callbacks : list of Callback, optional
            Their methods ``on_predict_...`` are called.
        lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            As in `fit`.

        Returns
        -------
        ndarray, list of ndarray, or a tuple of those if the last layer returns several
            One array (N, ...) in general. If the model has an output for each step, the result is a list of arrays
            (T_i, ...), one per sequence, in two cases: x is a list of sequences, or the batches of an iterable are
            lists or have different numbers of steps.
        """
        batch_size = _check_batch_size(batch_size, steps)
        network = self._network
        network.require_built()
        with self._usage.call("predict", alone=network.why_alone()) as call:
            told = self._callbacks(callbacks, verbose, None, batch_size)
            with network.with_own_states() if call.nested else contextlib.nullcontext():
                return prediction.predict(network, x, batch_size, lengths, steps, told)

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
        """Write the model to a file.

        The file contains the layers, the weights and, if the model is compiled, its optimizer, loss, metrics and
        optimizer state. A model that `load_model` reads from a ``.safetensors`` file predicts and continues its
        training with bit-identical results. The file contains a checksum. It is replaced atomically: after an error or
        a crash, `filepath` contains the old model or the new one.

        If the file format of another framework does not support a feature of the model, an error names the feature, and
        no file is written.

        Parameters
        ----------
        filepath : path
            The ending of the name selects the file format. ``.safetensors`` is fastgru's own format. See
            `fastgru.formats` for the formats of other frameworks.
        overwrite : bool
            Whether to replace an existing file. If False, an existing file raises FileExistsError.
        zipped
            Not supported: must be None. The file format determines it.
        format : str, optional
            The file format, one of those that `fastgru.formats` lists, regardless of the name's ending.
        include_optimizer : bool
            Whether to also write optimizer, loss, metrics and optimizer state. If False, call `compile` after loading
            to train the model. The file format then need not support its optimizer, loss and metrics.

        Raises
        ------
        ValueError
            The ending is unknown, or the file format does not support a feature of the model.
        FileExistsError
            The file exists, and `overwrite` is False.
        ImportError
            The file format needs an extra that is not installed.
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
        """Write only the weights to a file, for `load_weights` of a model with the same layers, here or in Keras.

        Parameters
        ----------
        filepath : path
            The ending selects the format. ``.safetensors`` files contain the weights by name, such as ``gru/kernel``.
            ``.weights.h5`` is the format of Keras 3, and ``.h5`` that of Keras 2.
        overwrite : bool
            Whether to replace an existing file. If False, an existing file raises FileExistsError.
        max_shard_size
            Not supported: must be None. All weights are written to one file.

        Raises
        ------
        ValueError
            The ending is unknown.
        FileExistsError
            The file exists, and `overwrite` is False.
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

    def require_saveable(
        self,
        filepath: str | os.PathLike[str],
        *,
        format: str | None = None,
        include_optimizer: bool = True,
        weights_only: bool = False,
    ) -> None:
        """Raise the error that saving to `filepath` would raise. No file is created or changed.

        Call it before a long training run. `callbacks.ModelCheckpoint` does so before the first epoch.

        Parameters
        ----------
        filepath, format, include_optimizer
            As in `save`.
        weights_only : bool
            Whether to check `save_weights` instead of `save`.

        Raises
        ------
        ValueError, TypeError
            The ending is unknown, or the file format does not support a feature of the model.
        ImportError
            The format needs an extra that is not installed.
        OSError
            No file can be written at `filepath`.
        """
        if checks.flag("weights_only", weights_only):
            formats.weights_kind(filepath)  # raises with this name instead of that of the trial
            with trial_name(filepath) as trial:
                self.save_weights(trial)
            return
        with self._usage.call("require_saveable"):
            saving.require_saveable(
                self._network, self._compilation, filepath, format=format, compiled=include_optimizer
            )

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Copy the weights from a file into the model.

        The file is a weights file or a model file, written by fastgru or Keras. Weights in ``.safetensors`` files are
        matched by their names. In Keras' files, layers are matched by their order.

        Parameters
        ----------
        filepath : path
            A ``.safetensors``, ``.weights.h5``, ``.keras`` or ``.h5`` file.
        skip_mismatch : bool
            Not supported: must be False. Either all weights are loaded or none.

        Raises
        ------
        ModelFileError
            The file is damaged, or its weights have other names or shapes. The model does not change.
        """
        if checks.flag("skip_mismatch", skip_mismatch):
            raise ValueError(
                "skip_mismatch: expected False because either all weights are loaded or none, got True; call "
                "set_weights on the layers whose weights have the right shapes"
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
        """Copy weights by ``layer/weight``, if all of them exist and have the right shapes."""
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
        """Return the layers and the input shape as a configuration of Keras 3, without weights and optimizer.

        ``keras.Sequential.from_config(model.get_config())`` creates the Keras model, if Keras supports all layers.
        """
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        return configs.model_to_config(saving.describe_layers(self._network))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: None = None) -> Self:
        """Create a model with new weights from a configuration. It is not compiled.

        Parameters
        ----------
        config : dict
            The result of ``get_config`` of a Sequential model, here or in Keras 3.
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
        """Return `get_config` as JSON, for `fastgru.models.model_from_json` and ``keras.models.model_from_json``."""
        from fastgru.formats.keras import configs  # late, so that fastgru is imported fast

        return configs.model_to_json(saving.describe_layers(self._network))

    # --- Descriptions and copies ---------------------------------------------------------------------------------

    def describe(self) -> ModelDescription:
        """Return a description of the model that all file formats use. Its arrays are copies."""
        self._network.require_built()
        with self._usage.call("describe"):
            return saving.describe(self._network, self._compilation)

    @classmethod
    def from_description(cls, description: ModelDescription) -> Self:
        """Create a model from the description that `describe` returned or a file format read.

        Raises
        ------
        ValueError, TypeError
            The description is inconsistent, or uses a feature that is not supported.
        """
        model = cls(dtype=description.dtype, name=description.name)
        saving.take_description(description, model._network, model._compilation)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the model as `save` does: the arrays of the layers are views of the new model's memory.

        Attributes that a subclass or user has added are also copied. Attributes that are layers of this model become
        the corresponding layers of the copy.
        """
        new_generator()  # unused, but advances the seed's sequence; the weights of later models depend on it
        own = {name: value for name, value in vars(self).items() if name not in _ATTRIBUTES}
        places = {
            name: place for name, value in own.items() for place, layer in enumerate(self.layers) if value is layer
        }
        others = {name: value for name, value in own.items() if name not in places}
        with self._usage.call("a copy"):
            config, tensors = saving.to_checkpoint(self._network, self._compilation)
            # Copies, because pickle reads the arrays after this method has returned.
            copies = {name: array.copy() for name, array in tensors.items()}
        return _remake, (type(self), config, copies, places, others)


def _remake(
    cls: type[Sequential],
    config: dict[str, Any],
    tensors: dict[str, Array],
    places: dict[str, int],
    others: dict[str, Any],
) -> Sequential:
    """Rebuild the model that `Sequential.__reduce__` returned, without calling the constructor of a subclass."""
    model = cls.__new__(cls)
    model._take(*saving.from_checkpoint(config, tensors))
    vars(model).update(others | {name: model.layers[place] for name, place in places.items()})
    return model


def _check_batch_size(batch_size: int | None, steps: int | None) -> int:
    """Return the batch size of `evaluate` and `predict`. With `steps`, it determines how many samples are used."""
    if steps is not None:
        checks.integer("steps", steps, least=1)
    if batch_size is None:
        return 128 if steps is None else 32
    return checks.integer("batch_size", batch_size, least=1)


def refuse_custom_objects(custom_objects: Any) -> None:
    """Raise ValueError if `custom_objects` is not None or empty."""
    if custom_objects:
        raise ValueError(
            f"custom_objects: expected None because only fastgru's classes are supported in files and configurations, "
            f"got {', '.join(map(str, custom_objects))}; load a model with compile=False and call compile with your "
            f"own losses and metrics"
        )


def _require_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise FileExistsError if `path` exists and `overwrite` is False."""
    if not checks.flag("overwrite", overwrite):
        check_path(path)
        if os.path.lexists(path):
            raise FileExistsError(
                f"{os.fspath(path)}: expected no file because of overwrite=False, got one; pass overwrite=True"
            )


def _as_returned(values: dict[str, float], *, return_dict: bool) -> Any:
    """Return loss and metrics as Keras does: a dict, a list, or a single number if there are no metrics."""
    if return_dict:
        return values
    numbers = list(values.values())
    return numbers if len(numbers) > 1 else numbers[0]
