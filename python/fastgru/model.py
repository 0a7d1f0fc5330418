"""Sequential: a chain of layers that is compiled, trained, evaluated, used and saved."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import batches, callbacks, checks, formats, losses, metrics, optimizers, schedules, sequences, training
from fastgru._native._cpu_features import __version__
from fastgru.batches import ArraySet, Batch, StreamSet, Unchecked
from fastgru.chain import Chain, Form
from fastgru.formats import checkpoint
from fastgru.formats.description import LayerDescription, ModelDescription, ModelFileError, TrainingDescription
from fastgru.layers import Dense, from_config
from fastgru.layers.base import strip_prefix
from fastgru.progress import Progress
from fastgru.samples import Samples, lengths_of

Array = NDArray[Any]

#: What a batch or a whole set is made of, by the names of the arguments.
_NAMES = ("x", "y", "lengths", "sample_weight")


class Sequential(Chain):
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
    optimizer : Optimizer or None
    stop_training : bool
        Set by a callback, it ends the training after the epoch.

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
        self, layers: Iterable[Any] | None = None, *, dtype: str | None = None, name: str = "sequential"
    ) -> None:
        super().__init__(layers, dtype=dtype, name=name)
        self.loss: losses.Loss | None = None
        self.metrics: list[metrics.Metric] = []
        self.stop_training = False
        self._run: training.Run | None = None  # while fit is at work

    # --- Training --------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss = "categorical_crossentropy",
        metrics: Sequence[str | metrics.Metric] | None = None,
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
        metrics : list, optional
            "accuracy", "top_k_accuracy", "binary_accuracy", "mae", "mse", "f1_score", or some of `fastgru.metrics`.

        A model with a loss, metric or schedule of a class of your own cannot be saved: a file holds names, no code.
        """
        checked = optimizers.get(optimizer)
        loss = losses.get(loss)
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a list, got {metrics!r}; write metrics=[{metrics!r}]")
        chosen = [_metric(metric, loss) for metric in metrics or ()]
        names = [metric.name for metric in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: expected different ones, got {', '.join(names)}")
        raw = self._takes_raw_head(loss)
        checked.belong_to(self)
        if self.optimizer is not None and self.optimizer is not checked:
            self.optimizer.leave()
        self.optimizer, self.loss, self.metrics, self._raw_head = checked, loss, chosen, raw

    def _takes_raw_head(self, loss: losses.Loss) -> bool:
        """Whether `loss` takes the last activation in itself; raises where they do not go together."""
        if not self.layers:
            raise ValueError("the model has no layers: add one")
        head = self.layers[-1]
        activation = head.activation if isinstance(head, Dense) else None
        if loss.head is None:
            if loss.from_logits and activation in ("softmax", "sigmoid"):
                raise ValueError(
                    f"loss: {loss.name} with from_logits=True needs a last layer without activation, got {activation!r}"
                )
            return activation == "linear"
        if activation != loss.head:
            found = repr(activation) if activation else f"a {type(head).__name__}, which is no Dense"
            raise ValueError(
                f"loss: {loss.name} needs a last layer with activation={loss.head!r}, got {found}; if that gives "
                f"logits, write losses.{type(loss).__name__}(from_logits=True)"
            )
        return True

    def _compiled(self) -> tuple[optimizers.Optimizer, losses.Loss]:
        if self.optimizer is None or self.loss is None:
            raise RuntimeError("the model is not compiled: call compile(optimizer, loss, metrics) first")
        self._raw_head = self._takes_raw_head(self.loss)  # a layer may have been added since
        if self.layers[-1].several_outputs:
            raise ValueError(
                f"{self.layers[-1].name}: expected a last layer with one output for a loss, got one that returns "
                f"several arrays"
            )
        return self.optimizer, self.loss

    # --- Data ------------------------------------------------------------------------------------------------

    def _check(
        self,
        given: Unchecked,
        form: Form,
        class_weight: dict[int, float] | None = None,
        names: tuple[str, ...] = _NAMES,
    ) -> tuple[Samples, Array, Array | None, Array | None]:
        """Samples, targets, lengths and weights, checked against a model of that form and each other."""
        assert self.loss is not None
        samples = Samples(names[0], given.x, form.input_shape, form.dtype, tokens=self.takes_tokens)
        if given.y is None:
            raise TypeError(f"{names[1]}: expected targets because {names[0]} is an array, got None")
        shape = _shape_for(given.x, form.output_shape)
        lengths = lengths_of(names[2], given.lengths, given.x, tokens=self.takes_tokens)
        # What targets and weights hold in padding does not matter, whoever says what that is.
        counted = self._check_values(names[0], samples, lengths)
        if len(shape) < 3:
            counted = None
        y = self.loss.check_targets(names[1], given.y, shape, counted)
        weights = _check_weights(names[3], given.weights, shape[:-1], counted)
        if class_weight is not None:
            weights = _weigh_classes(class_weight, y, shape, weights, counted)
        return samples, y, lengths, weights

    def _check_set(
        self,
        given: Unchecked,
        form: Form,
        class_weight: dict[int, float] | None = None,
        names: tuple[str, ...] = _NAMES,
    ) -> ArraySet:
        return ArraySet(*self._check(given, form, class_weight, names))

    def _check_batch(
        self, given: Unchecked, class_weight: dict[int, float] | None = None, names: tuple[str, ...] = _NAMES
    ) -> Batch:
        """A batch; the first one of all decides what the model is."""
        form = self._form_for(names[0], given.x, decide_dtype=True)
        samples, y, lengths, weights = self._check(given, form, class_weight, names)
        if len(samples) == 0:
            raise ValueError(f"{names[0]}: expected at least one sample, got 0")
        self._settle(form, decide_dtype=True)
        return Batch(samples.batch(slice(None)), y, lengths, weights)

    def _stream(
        self,
        name: str,
        source: Iterable[Any],
        class_weight: dict[int, float] | None,
        steps: int | None,
        *,
        steps_name: str,
    ) -> StreamSet:
        def check(batch: str, given: Unchecked) -> Batch:
            return self._check_batch(given, class_weight, tuple(f"{batch}, {part}" for part in _NAMES))

        return StreamSet(name, source, check, steps, steps_name=steps_name)

    def _data(
        self, given: Unchecked, class_weight: dict[int, float] | None, steps: int | None, *, decide: bool
    ) -> tuple[ArraySet | StreamSet, Form | None]:
        """A set of arrays and what they make of the model, or an iterable of batches where no y stands beside x."""
        if given.y is None and not isinstance(given.x, np.ndarray) and isinstance(given.x, Iterable):
            for name, value in (("lengths", given.lengths), ("sample_weight", given.weights)):
                if value is not None:
                    raise ValueError(f"{name}: expected none because x is an iterable of batches, got some")
            return self._stream("x", given.x, class_weight, steps, steps_name="steps_per_epoch"), None
        if steps is not None:
            raise ValueError("steps_per_epoch: expected none because x is an array, got a number")
        form = self._form_for("x", given.x, decide_dtype=decide)
        return self._check_set(given, form, class_weight), form

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
        validation_split: float = 0.0,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        callbacks: Any = None,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> training.History:
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
        validation_split : float
            Instead, keep back this fraction, the last samples before shuffling.
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
            A loss became NaN or infinite. The message gives epoch and batch; the weights are those before it.
        KeyboardInterrupt
            Ctrl-C. The weights are those after the last whole batch, and usable.
        ValueError, TypeError
            An argument does not fit; no weight has changed its value then, but by an iterable's batches before the one
            that does not fit. The model's dtype and shapes are then as they were, too.
        """
        _, loss = self._compiled()
        epochs = checks.integer("epochs", epochs, least=0)
        batch_size = _batch_size(batch_size, 32)
        split = checks.number("validation_split", validation_split, least=0, below=1)
        shuffle = checks.flag("shuffle", shuffle)
        if steps_per_epoch is not None:
            steps_per_epoch = checks.integer("steps_per_epoch", steps_per_epoch, least=1)
        if validation_steps is not None:
            validation_steps = checks.integer("validation_steps", validation_steps, least=1)
        at_once = batch_size
        if validation_batch_size is not None:
            at_once = checks.integer("validation_batch_size", validation_batch_size, least=1)
        if verbose not in (0, 1, 2, "auto"):
            raise ValueError(f"verbose: expected 0, 1, 2 or 'auto', got {verbose!r}")
        if resume_from is not None and not isinstance(resume_from, (str, os.PathLike)):
            raise TypeError(f"resume_from: expected a path, got {resume_from!r}")
        class_weight = _check_class_weight(class_weight, loss)
        data, form = self._data(Unchecked(x, y, lengths, sample_weight), class_weight, steps_per_epoch, decide=True)
        validation: ArraySet | StreamSet | None = None
        if validation_data is not None:
            if split:
                raise ValueError("validation_split: expected 0 because validation_data is given, got both")
            validation, form = self._validation(validation_data, validation_steps, form)
        elif split:
            if isinstance(data, StreamSet):
                raise ValueError("validation_split: expected 0 because x is an iterable of batches, got a fraction")
            data, validation = data.split(split)
        if validation_steps is not None and not isinstance(validation, StreamSet):
            raise ValueError(
                "validation_steps: expected none because validation_data is no iterable of batches, got a number"
            )
        if data.count == 0 or (validation is not None and validation.count == 0):
            part = "" if split == 0 else f" after validation_split={split:g}"
            raise ValueError(f"x: expected at least one sample to train and to validate on, got {len(x)}{part}")
        self._require_whole_batches("batch_size", batch_size, data.count)
        if validation is not None:
            name = "batch_size" if validation_batch_size is None else "validation_batch_size"
            self._require_whole_batches(name, at_once, validation.count)

        history = training.History(epochs, batch_size, data.count)
        told = _callbacks(callbacks, self, history.params, validated=validation is not None)
        asked = {
            "batch_size": batch_size,
            "samples": data.count,
            "shuffle": shuffle if isinstance(data, ArraySet) else None,
            "steps_per_epoch": steps_per_epoch,
            "class_weight": None if class_weight is None else [list(entry) for entry in sorted(class_weight.items())],
        }
        # Metrics of its own: whoever evaluates in the midst of an epoch uses the model's.
        tally = training.Tally(self, loss, copy.deepcopy(self.metrics))
        run = training.Run(tally, history, told, self._generator, asked, self._write_training)
        saved = None if resume_from is None else self._read_training(resume_from, run, form)
        if saved is not None:
            form = saved.model._form
        if form is not None:
            self._settle(form, decide_dtype=True)
        with self._at_work(run):
            # As in Keras: on_train_begin starts a callback anew, a resumed state comes after it.
            told.tell("on_train_begin", {})
            told.require_saveable()
            if saved is not None:
                self._go_on_from(saved, run)
            run.write_due()
            assert self.optimizer is not None
            training.fit(
                self,
                loss,
                self.optimizer,
                data,
                run,
                epochs=epochs,
                batch_size=batch_size,
                shuffle=shuffle,
                metrics=self.metrics,
                validation=validation,
                validation_batch_size=at_once,
                progress=Progress(1 if verbose == "auto" else int(verbose), epochs, data.count),
            )
            run.tell("on_train_end", {})
        return history

    @contextlib.contextmanager
    def _at_work(self, run: training.Run) -> Iterator[None]:
        """While `run` trains the model; a callback may train it as well meanwhile."""
        outer, stop = self._run, self.stop_training
        self._run = run
        try:
            yield
        finally:
            self._run = outer
            if outer is not None:
                self.stop_training = stop

    def _require_whole_batches(self, name: str, batch_size: int, count: int | None) -> None:
        """Raise if a stateful layer would get a last batch of fewer rows; not known of an iterable."""
        if self.stateful and count is not None and count > batch_size and count % batch_size:
            layer = next(layer.name for layer in self.layers if layer.stateful)
            raise ValueError(
                f"{name}: expected a divisor of {count}, the number of samples, because {layer} is stateful and "
                f"batches of other sizes have other rows, got {batch_size}"
            )

    def _validation(self, data: Any, steps: int | None, form: Form | None) -> tuple[ArraySet | StreamSet, Form | None]:
        """The set to validate on, and what the model will be, which arrays decide if the data to train on does not."""
        if isinstance(data, Mapping) or (isinstance(data, (tuple, list)) and not all(map(_is_batch, data))):
            keys = ("'x'", "'y'", "'lengths'", "'sample_weight'") if isinstance(data, Mapping) else ("0", "1", "", "2")
            names = tuple(f"validation_data[{key}]" for key in keys)
            given = batches.unpack("validation_data", data)
            form = form or self._form_for(names[0], given.x, decide_dtype=True)
            return self._check_set(given, form, names=names), form
        if isinstance(data, np.ndarray) or not isinstance(data, Iterable):
            raise TypeError(
                "validation_data: expected (x, y), (x, y, sample_weight), a dict or an iterable of batches, got "
                f"{type(data).__name__}"
            )
        return self._stream("validation_data", data, None, steps, steps_name="validation_steps"), form

    def train_on_batch(self, x: Array, y: Any, *, lengths: Any = None, sample_weight: Any = None) -> list[float]:
        """One update on one batch; returns its loss before the update, and the metrics."""
        optimizer, loss = self._compiled()
        batch = self._check_batch(Unchecked(x, y, lengths, sample_weight))
        tally = training.Tally(self, loss, self.metrics)
        training.train_step(self, loss, optimizer, batch, tally)
        return list(tally.values().values())

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
        _, loss = self._compiled()
        batch_size = _batch_size(batch_size, 128)
        data, form = self._data(Unchecked(x, y, lengths, sample_weight), None, None, decide=False)
        if form is not None:
            self._settle(form, decide_dtype=False)
        if data.count == 0:
            raise ValueError("x: expected at least one sample, got 0")
        found = training.evaluate(self, loss, data, batch_size, self.metrics)
        return found if checks.flag("return_dict", return_dict) else list(found.values())

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
        batch_size = _batch_size(batch_size, 128)
        del verbose
        self._require_built()
        form = self._form_for("x", x, decide_dtype=False)
        samples = Samples("x", x, form.input_shape, form.dtype, tokens=self.takes_tokens)
        lengths = lengths_of("lengths", lengths, x, tokens=self.takes_tokens)
        self._check_values("x", samples, lengths)
        results: list[Array] = []
        several = False
        for begin in range(0, max(len(samples), 1), batch_size):
            rows = slice(begin, begin + batch_size)
            y = self.forward(samples.batch(rows), lengths=None if lengths is None else lengths[rows])
            several = isinstance(y, tuple)
            parts = y if isinstance(y, tuple) else (y,)
            if not results:
                results = [np.empty((len(samples), *part.shape[1:]), part.dtype) for part in parts]
            for result, part in zip(results, parts, strict=True):
                result[rows] = part
        return tuple(results) if several else results[0]

    # --- Files -----------------------------------------------------------------------------------------------

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
        self._require_built()
        kind = formats.kind_of_name(path) if format is None else checks.choice("format", format, formats.KINDS)
        compiled = checks.flag("include_optimizer", include_optimizer)
        if kind == "fastgru":
            checkpoint.save(path, *self._to_checkpoint(compiled=compiled))
            return
        description = self.describe()
        if compiled:
            self._require_metrics_known_by_name()
        else:
            description.training = None
        formats.write(path, description, kind)

    def _require_metrics_known_by_name(self) -> None:
        for metric in self.metrics:
            assert self.loss is not None
            if _described(metric) != _described(metrics.get(metric.name, self.loss)):
                raise ValueError(
                    f"metrics: the options of {metric.name} cannot be said in other frameworks' files; "
                    f"include_optimizer=False leaves the training out"
                )

    def describe(self) -> ModelDescription:
        """The model in the words that file formats understand; its arrays are copies."""
        self._require_built()
        layers = [
            LayerDescription(
                type(layer).__name__,
                layer.name,
                layer.get_config(),
                {name: array.copy() for name, array in layer.weights.items()},
            )
            for layer in self.layers
        ]
        training = None
        if self.optimizer is not None and self.loss is not None:
            step, states = self.optimizer.get_state()
            training = TrainingDescription(
                _described(self.optimizer),
                {"name": self.loss.name, "config": self.loss.get_config()},
                [metric.name for metric in self.metrics],
                step,
                {
                    state: {name: array.copy() for name, array in self.views(flat).items()}
                    for state, flat in states.items()
                },
            )
        return ModelDescription(layers, self._input_shape[1:], self.name, str(self.dtype), training)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights alone, for a model made in the same way, here or in Keras.

        Parameters
        ----------
        path : path
            ``*.weights.h5`` as Keras 3 writes it; ``*.h5`` as Keras 2 did.
        """
        self._require_built()
        if not os.fspath(path).lower().endswith((".h5", ".hdf5")):
            raise ValueError(f"path: expected a name that ends in .weights.h5 or .h5, got {os.fspath(path)}")
        formats.write_weights(path, self.describe())

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
        self._require_built()
        found = formats.read_weights(path, self.describe().layers)
        try:
            self.set_weights(list(found.values()))
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def from_description(cls, description: ModelDescription) -> Sequential:
        """The model that a file described.

        Raises
        ------
        ValueError, TypeError
            The description contradicts itself, or wants what this package does not have.
        """
        model = cls(dtype=description.dtype, name=description.name)
        for entry in description.layers:
            layer = from_config(entry.class_name, entry.config, name=entry.name)
            layer.name = entry.name
            if any(layer.name == other.name for other in model.layers):
                raise ValueError(f"it has two layers called {layer.name!r}")
            model.layers.append(layer)
        if description.input_shape is None:
            return model
        model._infer_shapes((None, *checks.shape("input_shape", description.input_shape)))
        # The file's arrays bound what is allocated: shapes are compared before any memory is taken.
        for layer, entry in zip(model.layers, description.layers, strict=True):
            found, expected = {name: array.shape for name, array in entry.weights.items()}, layer.weight_shapes()
            if found != expected:
                raise ValueError(f"{layer.name}: expected weights of shapes {expected}, got {found}")
        model._allocate(initialize=False)
        for layer, entry in zip(model.layers, description.layers, strict=True):
            for name, array in entry.weights.items():
                layer.weights[name][...] = array
        if description.training is not None:
            model._train_as(description.training)
        return model

    @property
    def _form(self) -> Form:
        return Form(self._input_shape, self.output_shape, self.dtype)

    def _train_as(self, training: TrainingDescription) -> None:
        optimizer = optimizers.from_config(training.optimizer["class_name"], training.optimizer["config"])
        loss = losses.LOSSES[training.loss["name"]](**training.loss["config"])
        self.compile(optimizer, loss, training.metrics)
        states = {}
        for state, moments in training.moments.items():
            states[state] = np.zeros_like(self.parameters)
            for name, view in self.views(states[state]).items():
                view[...] = moments[name]
        optimizer.set_state(training.step, states)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made as files are: the layers' arrays must be views of the copy's own memory.

        What a class of the user's own has besides goes with it; attributes that are layers are the copy's layers.
        """
        known = vars(Sequential())
        own = {name: value for name, value in vars(self).items() if name not in known}
        places = {
            name: place for name, value in own.items() for place, layer in enumerate(self.layers) if value is layer
        }
        others = {name: value for name, value in own.items() if name not in places}
        return _remake, (type(self), *self._to_checkpoint(), places, others)

    def _to_checkpoint(self, *, compiled: bool = True) -> tuple[dict[str, Any], dict[str, Array]]:
        if compiled:
            self._require_own_classes()
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
        tensors |= {f"states/{name}": array for name, array in self.get_states().items()}
        if compiled and self.optimizer is not None and self.loss is not None:
            step, moments = self.optimizer.get_state()
            config["compile"] = {
                "optimizer": {**_described(self.optimizer), "step": step},
                "loss": {"name": self.loss.name, "config": self.loss.get_config()},
                "metrics": [{"name": m.name, **_described(m)} for m in self.metrics],
            }
            tensors |= {f"optimizer/{name}": array for name, array in moments.items()}
        return config, tensors

    def _require_own_classes(self) -> None:
        """Raise if the model is compiled with something that `load_model` could not make again from its name."""
        if self.optimizer is None or self.loss is None:
            return
        rate = self.optimizer.learning_rate
        for name, thing, known in (
            ("optimizer", self.optimizer, optimizers.OPTIMIZERS),
            *((("learning_rate", rate, schedules.SCHEDULES),) if isinstance(rate, schedules.Schedule) else ()),
            ("loss", self.loss, losses.LOSSES),
            *(("metrics", metric, metrics.CLASSES) for metric in self.metrics),
        ):
            if type(thing) not in known.values():
                raise ValueError(
                    f"{name}: expected one of fastgru's because a file holds names, no code, got "
                    f"{type(thing).__name__}; a model can be saved once it is compiled without it"
                )

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

    def _write_training(self, path: str | os.PathLike[str]) -> None:
        assert self._run is not None
        config, tensors = self._to_checkpoint()
        config["training"], arrays = checkpoint.split_arrays("training", self._run.get_state())
        tensors |= {f"training/{name}": array for name, array in arrays.items()}
        checkpoint.save(path, config, tensors)

    def _read_training(self, path: str | os.PathLike[str], run: training.Run, form: Form | None) -> _Saved:
        """The model and the state of the training that `save_training` wrote, if this training can go on from it.

        Nothing of this model changes; `form` is what it will be, where data has decided that.
        """
        config, tensors = checkpoint.load(path)
        if "training" not in config:
            raise ValueError(
                f"resume_from: expected a file of callbacks.ModelCheckpoint, got {os.fspath(path)}, a model without "
                f"the state of a training"
            )
        saved = _read(path, config, tensors)
        for name in ("layers", "compile"):
            one, other = (_comparable(model._to_checkpoint()[0].get(name)) for model in (saved, self))
            if one != other:
                where, one, other = _first_difference(name, one, other)
                raise ValueError(f"resume_from: expected a model with the same {where}, {one!r}, got {other!r}")
        shape = form.input_shape if form is not None else self._input_shape
        if shape and shape != saved.input_shape:
            raise ValueError(
                f"resume_from: expected input of shape {checks.dims(saved.input_shape)} as the training to resume had, "
                f"got {checks.dims(shape)}"
            )
        dtype = form.dtype if form is not None else self._dtype
        if dtype is not None and dtype != saved.dtype:
            raise ValueError(f"resume_from: expected {saved.dtype} data as the training to resume had, got {dtype}")
        with _state_of_training(path, ValueError, ArithmeticError):
            state = checkpoint.join_arrays(config["training"], strip_prefix(tensors, "training/"))
            run.require_sound(state)
        with _state_of_training(path):
            run.require_same(state)
        return _Saved(path, saved, state)

    def _go_on_from(self, saved: _Saved, run: training.Run) -> None:
        """Take on what `_read_training` found."""
        with _state_of_training(saved.path):
            run.set_state(saved.state)
        other = saved.model
        assert self.optimizer is not None
        assert other.optimizer is not None
        np.copyto(self.parameters, other.parameters)
        self.optimizer.learning_rate = other.optimizer.learning_rate  # ReduceLROnPlateau may have lowered it
        self.optimizer.set_state(*other.optimizer.get_state())
        self._generator.bit_generator.state = other._generator.bit_generator.state
        self.set_states(other.get_states())

    @classmethod
    def _from_checkpoint(cls, config: dict[str, Any], tensors: dict[str, Array]) -> Sequential:
        input_shape: tuple[int | None, ...] | None = None
        if config["input_shape"]:
            rows, *sizes = config["input_shape"]
            if rows is not None:
                raise ValueError(f"its input_shape fixes the batch to {rows!r}")
            input_shape = tuple(sizes)
        found = strip_prefix(tensors, "layers/")
        layers = [
            LayerDescription(
                entry["class_name"], entry["name"], entry["config"], strip_prefix(found, f"{entry['name']}/")
            )
            for entry in config["layers"]
        ]
        description = ModelDescription(layers, input_shape, config["name"], config["dtype"])
        if found.keys() != description.weights().keys():
            raise ValueError("its weights do not fit its configuration")
        if any(array.dtype != config["dtype"] for array in found.values()):
            raise ValueError(f"its weights are not {config['dtype']} as its configuration says")
        model = cls.from_description(description)
        model._generator.bit_generator.state = config["generator"]
        model.set_states(strip_prefix(tensors, "states/"))
        if config.get("compile") is not None:
            model._compile_as(config["compile"], tensors)
        return model

    def _compile_as(self, choices: dict[str, Any], tensors: dict[str, Array]) -> None:
        optimizer = optimizers.from_config(choices["optimizer"]["class_name"], choices["optimizer"]["config"])
        loss = choices["loss"]
        loss = losses.get(loss) if isinstance(loss, str) else losses.LOSSES[loss["name"]](**loss["config"])
        chosen = []
        for entry in choices["metrics"]:
            if isinstance(entry, str):
                chosen.append(metrics.get(entry, loss))
            else:
                chosen.append(metrics.CLASSES[entry["class_name"]](**entry["config"]))
                chosen[-1].name = entry["name"]
        self.compile(optimizer, loss, chosen)
        moments = strip_prefix(tensors, "optimizer/")
        for array in moments.values():
            if array.shape != self.parameters.shape or array.dtype != self.dtype:
                raise ValueError("its optimizer's moments do not fit its weights")
        optimizer.set_state(choices["optimizer"]["step"], moments)


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
        The kind of file, a key of `fastgru.formats.KINDS`, for those whose contents do not show it.
    **options
        What the kind of file leaves open, as its reader takes it: see `fastgru.formats.torch.read`.

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
    kind = formats.kind_of_file(path) if format is None else checks.choice("format", format, formats.KINDS)
    if kind == "fastgru":
        if options:
            raise TypeError(f"{min(options)}: expected no options because the file is fastgru's own, got some")
        config, tensors = checkpoint.load(path)
        return _read(path, config if compile else {**config, "compile": None}, tensors)
    description = formats.read(path, kind, compile=compile, **options)
    try:
        return Sequential.from_description(description)
    except (LookupError, TypeError, ValueError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ModelFileError(f"{os.fspath(path)}: not a model that this package can make: {error}") from None


def _read(path: str | os.PathLike[str], config: dict[str, Any], tensors: dict[str, Array]) -> Sequential:
    try:
        return Sequential._from_checkpoint(config, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        # Whatever a hostile configuration trips over, the file is what is wrong.
        raise ModelFileError(f"{os.fspath(path)}: not a model that this version can make: {error!r}") from None


def _batch_size(value: int | None, default: int) -> int:
    return default if value is None else checks.integer("batch_size", value, least=1)


def _remake(
    cls: type[Sequential],
    config: dict[str, Any],
    tensors: dict[str, Array],
    places: dict[str, int],
    others: dict[str, Any],
) -> Sequential:
    """What `Sequential.__reduce__` took apart, without calling the constructor of a class of the user's own."""
    found = Sequential._from_checkpoint(config, tensors)
    model = cls.__new__(cls)
    vars(model).update(vars(found) | others | {name: found.layers[place] for name, place in places.items()})
    return model


def _metric(metric: Any, loss: losses.Loss) -> metrics.Metric:
    return metrics.get(metric, loss)


class _Saved(NamedTuple):
    """What a file of `ModelCheckpoint` held."""

    path: str | os.PathLike[str]
    model: Sequential
    state: dict[str, Any]  # of the training


@contextlib.contextmanager
def _state_of_training(path: str | os.PathLike[str], *more: type[Exception]) -> Iterator[None]:
    """Whatever a state trips over that no training wrote, and `more`, the file is what is wrong."""
    malformed: tuple[type[Exception], ...] = (LookupError, TypeError, AttributeError, RecursionError, *more)
    try:
        yield
    except malformed as error:
        raise ModelFileError(f"{os.fspath(path)}: its state of training is not one: {error!r}") from None


def _callbacks(given: Any, model: Sequential, params: dict[str, Any], *, validated: bool) -> callbacks.Callbacks:
    told = callbacks.Callbacks(callbacks.check(given), model, params)
    logs = ["loss", *(metric.name for metric in model.metrics)]
    told.require_possible([*logs, *(f"val_{name}" for name in logs)] if validated else logs)
    if told.write_files():
        model._require_own_classes()
    return told


def _is_batch(given: Any) -> bool:
    """Whether it is a batch of its own, and no array."""
    pair = isinstance(given, (tuple, list)) and len(given) > 0 and isinstance(given[0], np.ndarray)
    return pair or isinstance(given, Mapping)


def _shape_for(x: Array, output_shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of the outputs for samples `x`; an axis that any size will do for is the steps'."""
    return (len(x), *(x.shape[1] if size is None else size for size in output_shape[1:]))


def _described(thing: Any) -> dict[str, Any]:
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def _comparable(entry: Any) -> Any:
    """A part of a configuration without what training changes."""
    if isinstance(entry, dict):
        entry = {name: value for name, value in entry.items() if name != "step"}
        if "optimizer" in entry:
            optimizer = dict(entry["optimizer"])
            optimizer["config"] = dict(optimizer["config"])
            if not isinstance(optimizer["config"]["learning_rate"], dict):  # a callback may have lowered it
                optimizer["config"]["learning_rate"] = "a number"
            optimizer.pop("step")
            entry["optimizer"] = optimizer
    return entry


def _first_difference(where: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """Where two parts of a configuration differ first, and what stands there in each."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            if one[name] != other[name]:
                return _first_difference(f"{where}/{name}", one[name], other[name])
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"number of {where}", len(one), len(other)
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _first_difference(f"{where}[{number}]", left, right)
    return where, one, other


# --- Weights of samples ---------------------------------------------------------------------------------------


def _check_weights(name: str, weights: Any, elements: tuple[int, ...], lengths: Array | None) -> Array | None:
    """Weights (N,), or (N, T) for outputs at each step, finite and at least 0 but for padding."""
    if weights is None:
        return None
    array = checks.array(name, weights)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    if array.shape not in (elements[:1], elements):
        shapes = " or ".join(str(shape) for shape in dict.fromkeys((elements[:1], elements)))
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}")
    wrong = ~(np.isfinite(array) & (array >= 0))
    if lengths is not None and array.ndim > 1:
        wrong &= sequences.valid_in(lengths, array.shape)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = index[0] if len(index) == 1 else index
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {array[index]} at index {at}")
    return array.astype(np.float64)


def _check_class_weight(class_weight: Any, loss: losses.Loss) -> dict[int, float] | None:
    if class_weight is None:
        return None
    if not isinstance(class_weight, dict):
        raise TypeError(f"class_weight: expected a dict from classes to numbers, got {type(class_weight).__name__}")
    if not (loss.classifies or loss.asks):
        raise ValueError(f"class_weight: expected none because {loss.name} knows no classes, got some")
    return {
        checks.integer("class_weight", label, least=0): checks.number(f"class_weight[{label}]", weight, least=0)
        for label, weight in class_weight.items()
    }


def _weigh_classes(
    class_weight: dict[int, float], y: Array, shape: tuple[int, ...], weights: Array | None, lengths: Array | None
) -> Array:
    """The weights of all elements: those of their classes, times `weights`."""
    classes = shape[-1]
    labels = y
    if y.ndim == len(shape):
        labels = (y[..., 0] > 0.5).astype(np.int64) if classes == 1 else y.argmax(axis=-1)
    if lengths is not None:
        labels = np.where(sequences.valid_in(lengths, labels.shape), labels, 0)
    bins = max(classes, 2)
    outside = [label for label in class_weight if label >= bins]
    if outside:
        raise ValueError(f"class_weight: expected classes from 0 to {bins - 1}, got {outside[0]}")
    factors: Array = np.array([class_weight.get(label, 1.0) for label in range(bins)])[labels]
    if weights is None:
        return factors
    return np.asarray(factors * weights.reshape(*weights.shape, *(1 for _ in factors.shape[weights.ndim :])))
