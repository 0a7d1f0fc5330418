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

#: All attributes of a `Sequential`; others belong to a user's subclass.
_ATTRIBUTES = frozenset(("_network", "_compilation", "_usage", "_run", "stop_training", "history"))
#: Attribute of Keras' models -> what to use instead.
_ELSEWHERE = {
    "export": "use save('model.onnx')",
    "get_metrics_result": "use evaluate(x, y, return_dict=True)",
    "inputs": "use input_shape",
    "outputs": "use output_shape",
    "quantize": "weights are float32 or float64",
}
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
        The dtype of the weights and of all computations; float32 if not given. Input of any real dtype is converted to
        it batch by batch.
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
    parameters : ndarray (P,)
        All weights in one array, of which the weights of the layers are views. Empty until the model is built.
    gradient : ndarray (P,)
        The gradients of `parameters`, with views in the layers.
    optimizer : Optimizer or None
    loss : Loss or None
    metrics : list of Metric
        What `compile` chose.
    stop_training : bool
        A callback sets it to end the training: after an epoch, or within one after a batch, as in Keras.
    history : callbacks.History or None
        What the last call of `fit` returned.

    Notes
    -----
    Several threads may call `predict`, `evaluate`, `get_weights` and `save` at once, unless a layer is stateful. All
    other calls need the model for themselves and raise RuntimeError while another thread uses it: give each thread its
    own copy (`copy.deepcopy`).

    All methods that take data take NumPy arrays, nested lists, and the arrays of other libraries: PyTorch tensors on
    the CPU, and objects with ``__array__`` or ``__dlpack__``, such as those of JAX, TensorFlow and pandas. Sequences of
    different lengths are a list of arrays (T_i, F), or (T_i,) for tokens, which are padded batch by batch. Targets and
    weights for each step are then a list of arrays, too.

    Batches come from anything that can be iterated over for each epoch, such as a `torch.utils.data.DataLoader` or a
    `tf.data.Dataset`, or from an object with ``__len__`` and ``__getitem__``, such as a `keras.utils.PyDataset`. A
    batch is ``(x, y)``, ``(x, y, sample_weight)``, or a dict with ``x``, ``y``, ``lengths``, ``sample_weight``. A third
    element of integers above 1, none of them above the number of steps, is used as lengths, with a warning.

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
        self.history: History | None = None

    def __repr__(self) -> str:
        return as_call(self, self._shown)

    def _shown(self) -> dict[str, Any]:
        """The arguments in a `repr` that are not the attributes of the same name."""
        dtype = self._network.dtype.name
        return {
            "layers": self.layers or None,
            "name": None if self.name == "sequential" else self.name,
            "dtype": None if dtype == "float32" else dtype,
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
            if name in _ELSEWHERE:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; {_ELSEWHERE[name]}")
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
        """The dtype of the weights."""
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
            Samples of real numbers, or without y an iterable of batches; see the notes. Each batch is converted to the
            model's dtype; nothing is scaled (see `layers.Rescaling`). The array may be memory-mapped. Integers (N, T)
            or (T_i,) if the first layer is an `Embedding`.
        y : array_like
            Targets as the loss takes them: integer labels (N,), or one for each step (N, T); one-hot or other targets
            (N, C); numbers of the output's shape. If x is a list of sequences, targets for each step are a list of
            arrays (T_i,) or (T_i, C).
        batch_size : int
            None means 32. Ignored if x is an iterable of batches.
        epochs : int
            The number of the last epoch, counted from 1; `initial_epoch` epochs fewer are trained.
        verbose : {0, 1, 2, "auto"}
            0 prints nothing; 1 shows a progress bar on a terminal and prints a line per epoch elsewhere; 2 prints a
            line per epoch. "auto" is 1.
        callbacks : list of Callback, optional
            See `fastgru.callbacks`.
        validation_split : float, or ndarray (K,) of integers
            Hold back this fraction of the samples for validation: the last ones, before shuffling. UserWarning if a
            class is missing from either part. Or hold back the samples with these indices; no array is copied.
        validation_data : tuple, dict or iterable, optional
            Evaluated after each epoch: (x, y), (x, y, sample_weight), a dict with x, y, lengths, sample_weight, or an
            iterable of such batches. Stateful layers begin it without states, and training continues with its own.
        shuffle : bool
            Whether to draw a new order for each epoch: of the samples, or of the batches of an object with
            ``__getitem__`` and ``__len__``. Ignored for other iterables.
        class_weight : dict, optional
            Factors of the losses by class.
        sample_weight : array_like (N,), or (N, T) for outputs at each step, optional
            Factors of the losses; their mean is still taken over all samples, as in Keras. Metrics are not weighted.
        initial_epoch : int
            The epoch to begin with, counted from 0, for callbacks, logs and learning rate schedulers. Weights and
            optimizer are used as they are. With `resume_from`, the file gives this number: leave `initial_epoch` out.
        steps_per_epoch : int, optional
            How many batches of an iterable make an epoch; all if not given.
        validation_steps : int, optional
            How many batches of an iterable to evaluate; all if not given.
        validation_batch_size : int, optional
            `batch_size` if not given; affects memory and speed only.
        validation_freq : int, or list of int
            Validate after every so many epochs, or after these epochs, counted from 1. Callbacks that monitor the
            validation ignore the other epochs.
        lengths : array_like (N,) of integers, or (N, T) of bool, optional
            How many steps of each sequence count, or a mask of these steps. Values after the end of a sequence are
            ignored and not computed.
        resume_from : path, optional
            A ``.safetensors`` file that `callbacks.ModelCheckpoint` wrote during a call of `fit` with the same data and
            callbacks. Training continues until `epochs` are done, with the same bits as if it had not been interrupted.
            An iterable is begun anew, and with `steps_per_epoch` the batches of earlier epochs are drawn and dropped. A
            learning rate that is a number is taken from the file; a schedule must be the same.

        Returns
        -------
        callbacks.History
            The one among `callbacks`, if there is one.

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
            An argument is invalid; no weight has changed its value then, but by an iterable's batches before the
            invalid one. The model's dtype and shapes are then as they were, too.
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
        # Metrics of its own: whoever evaluates in the midst of an epoch uses the model's.
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
            # As in Keras: on_train_begin starts a callback anew, a resumed state comes after it.
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
        """The callbacks of a training, and the `History` among them, which is added if there is none."""
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
        """The training to resume, if there is one, and the form of the model then."""
        backup = run.callbacks.find_backup()
        path = backup if resume_from is None else resume_from
        if path is None:
            return None, sets.form
        if backup is not None and resume_from is not None:
            raise ValueError(
                f"resume_from: expected None because BackupAndRestore has found {backup}, got "
                f"{os.fspath(resume_from)}; delete one of the two files"
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
        """While `run` trains the model."""
        self._run = run
        try:
            yield
        finally:
            self._run = None

    def save_training(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of the running training, for ``fit(..., resume_from=path)``.

        `callbacks.ModelCheckpoint` calls it. The file is written after all callbacks have been called for the same
        epoch or batch, so that it holds the state of each; nothing is written for an epoch that `TerminateOnNaN` ends.

        Raises
        ------
        RuntimeError
            `fit` is not running.
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
            The loss of the batch before the update, with metrics ``[loss, *metrics]``. They are of this batch alone;
            Keras returns means over the calls since `reset_metrics`.

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
        """Return the outputs for one batch, computed in one piece; `predict` describes the arguments."""
        return self.predict(x, batch_size=max(checks.rows("x", x), 1), verbose=0, lengths=lengths)

    def __call__(self, x: Any, training: bool | None = None, mask: Any = None, *, lengths: Any = None) -> Any:
        """Return the outputs for one batch. The first call makes the weights of a model that has none.

        Parameters
        ----------
        x : ndarray (N, ...)
        training : bool, optional
            Whether dropout drops values; False if not given.
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
        training = training is not None and checks.flag("training", training)
        reason = "a pass in training writes into the layers" if training else network.why_alone()
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
        """Compute the loss and the metrics.

        Parameters
        ----------
        x, y, sample_weight, lengths
            As in `fit`.
        batch_size : int
            Affects memory and speed only, unless `steps` is given. None means 128, and 32 with `steps`, as in Keras.
        verbose : {0, 1, 2, "auto"}
            1 and 2 print a line with the result; 0 and "auto" print nothing.
        steps : int, optional
            How many batches to evaluate; all if not given.
        callbacks : list of Callback, optional
            Their methods ``on_test_...`` are called.
        return_dict : bool
            Whether to return the values by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss, with metrics ``[loss, *metrics]``.
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
            # Another evaluation may be counting with the model's metrics: in another thread, or around this one.
            metrics = self.metrics if call.first and not call.nested else copy.deepcopy(self.metrics)
            told = self._callbacks(callbacks, verbose, data, batch_size)
            found = self._evaluate(data, batch_size, metrics, told, apart=call.nested, steps=steps)
        if printed:
            print(f"Evaluation: {describe(found)}")
        return _as_returned(found, return_dict=checks.flag("return_dict", return_dict))

    def _callbacks(
        self, given: Any, verbose: int | str, data: ArraySet | StreamSet | None, batch_size: int
    ) -> dispatch.Callbacks:
        """The callbacks of an evaluation or a prediction."""
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
        """Loss and metrics by name; `apart` from the states of the call around it."""
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
        """Compute the outputs (N, ...) for samples (N, ...), batch by batch, so that only the result grows with N.

        A sample's output has the same bits whatever the batch size and the padding.

        Parameters
        ----------
        x : array_like (N, ...), list of array_like (T_i, F), or iterable
            Samples as in `fit`. Or an iterable of batches: x, (x, y), (x, y, sample_weight), or dicts with x and maybe
            lengths; targets and weights are ignored.
        batch_size : int
            Affects memory and speed only, unless `steps` is given; a stateful layer needs batches of one size. None
            means 128, and 32 with `steps`, as in Keras.
        verbose : {0, 1, 2, "auto"}
            Ignored; nothing is printed.
        steps : int, optional
            How many batches to predict; all if not given.
        callbacks : list of Callback, optional
            Their methods ``on_predict_...`` are called.
        lengths : ndarray (N,) of integers, or (N, T) of bool, optional
            As in `fit`.

        Returns
        -------
        ndarray, list of ndarray, or a tuple of those if the last layer returns several
            Outputs for each step of a list of sequences are a list with one array (T_i, ...) for each sequence;
            likewise those of an iterable whose batches are lists or have different numbers of steps. All others are one
            array.
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

    def require_saveable(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        include_optimizer: bool = True,
        weights_only: bool = False,
    ) -> None:
        """Raise now the error that saving to `path` would raise; no file is created or changed.

        Call it before a long training. `callbacks.ModelCheckpoint` does so before the first epoch.

        Parameters
        ----------
        path, format, include_optimizer
            As in `save`.
        weights_only : bool
            Whether `save_weights` will write the file instead of `save`.

        Raises
        ------
        ValueError, TypeError
            The ending is unknown, or the format does not support something that the model has.
        ImportError
            The format needs an extra that is not installed.
        OSError
            No file can be written at `path`.
        """
        if checks.flag("weights_only", weights_only):
            formats.weights_kind(path)  # raises with this path instead of that of the trial
            with trial_name(path) as trial:
                self.save_weights(trial)
            return
        with self._usage.call("require_saveable"):
            saving.require_saveable(self._network, self._compilation, path, format=format, compiled=include_optimizer)

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


def _check_batch_size(batch_size: int | None, steps: int | None) -> int:
    """The batch size of `evaluate` and `predict`: with a number of steps, it decides how many samples are used."""
    if steps is not None:
        checks.integer("steps", steps, least=1)
    if batch_size is None:
        return 128 if steps is None else 32
    return checks.integer("batch_size", batch_size, least=1)


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
