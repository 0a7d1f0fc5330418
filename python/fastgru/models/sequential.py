"""Sequential: a chain of layers that is compiled, trained, evaluated, used and saved."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import callbacks, formats
from fastgru._support import checks, usage
from fastgru._support.samples import Samples, lengths_of
from fastgru._training import data as batches
from fastgru._training import loop
from fastgru._training.data import ArraySet, Batch, StreamSet, Unchecked
from fastgru._training.progress import Progress
from fastgru._training.sample_weights import check_class_weight, check_weights, classes_in, weigh_classes
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import Assumption, AssumptionWarning, list_assumptions
from fastgru.metrics import Metric
from fastgru.models.network import Form
from fastgru.models.saving import Saved

Array = NDArray[Any]

#: What a batch or a whole set is made of, by the names of the arguments.
_NAMES = ("x", "y", "lengths", "sample_weight")


class Sequential(Saved):
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
        weights = check_weights(names[3], given.weights, shape[:-1], counted)
        if class_weight is not None:
            weights = weigh_classes(class_weight, y, shape, weights, counted)
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
        _, loss = self._compiled()
        epochs = checks.integer("epochs", epochs, least=0)
        batch_size = _batch_size(batch_size, 32)
        split = _split("validation_split", validation_split)
        has_split = not isinstance(split, float) or split > 0
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
        class_weight = check_class_weight(class_weight, loss)
        data, form = self._data(Unchecked(x, y, lengths, sample_weight), class_weight, steps_per_epoch, decide=True)
        validation: ArraySet | StreamSet | None = None
        if validation_data is not None:
            if has_split:
                raise ValueError("validation_split: expected 0 because validation_data is given, got both")
            validation, form = self._validation(validation_data, validation_steps, form)
        elif has_split:
            if isinstance(data, StreamSet):
                raise ValueError("validation_split: expected 0 because x is an iterable of batches, got some")
            assert form is not None
            data, validation = self._hold_back(data, split, form)
        if validation_steps is not None and not isinstance(validation, StreamSet):
            raise ValueError(
                "validation_steps: expected none because validation_data is no iterable of batches, got a number"
            )
        if data.count == 0 or (validation is not None and validation.count == 0):
            part = ""
            if has_split:
                part = (
                    f" after validation_split={f'{split:g}' if isinstance(split, float) else f'{len(split)} indices'}"
                )
            raise ValueError(f"x: expected at least one sample to train and to validate on, got {len(x)}{part}")
        self._require_whole_batches("batch_size", batch_size, data.count)
        if validation is not None:
            name = "batch_size" if validation_batch_size is None else "validation_batch_size"
            self._require_whole_batches(name, at_once, validation.count)

        history = loop.History(epochs, batch_size, data.count)
        told = _callbacks(callbacks, self, history.params, validated=validation is not None)
        asked = {
            "batch_size": batch_size,
            "samples": data.count,
            "shuffle": shuffle if isinstance(data, ArraySet) else None,
            "steps_per_epoch": steps_per_epoch,
            "class_weight": None if class_weight is None else [list(entry) for entry in sorted(class_weight.items())],
            "validation_split": split
            if isinstance(split, float)
            else f"{len(split)} indices with checksum {zlib.crc32(split.astype(np.int64).tobytes()):08x}",
        }
        # Metrics of its own: whoever evaluates in the midst of an epoch uses the model's.
        tally = loop.Tally(self, loss, copy.deepcopy(self.metrics))
        run = loop.Run(tally, history, told, self._generator, asked, self._write_training)
        saved = None if resume_from is None else self._read_training(resume_from, run, form)
        if saved is not None:
            form = saved.model._form
        if form is not None:
            self._settle(form, decide_dtype=True)
        validate = None
        if validation is not None:
            validate = functools.partial(self._evaluate, validation, at_once, self.metrics, apart=True)
        with self._at_work(run):
            # As in Keras: on_train_begin starts a callback anew, a resumed state comes after it.
            told.tell("on_train_begin", {})
            told.require_saveable()
            if saved is not None:
                self._go_on_from(saved, run)
            run.write_due()
            assert self.optimizer is not None
            loop.fit(
                self,
                loss,
                self.optimizer,
                data,
                run,
                epochs=epochs,
                batch_size=batch_size,
                shuffle=shuffle,
                validate=validate,
                progress=Progress(1 if verbose == "auto" else int(verbose), epochs, data.count),
            )
            run.tell("on_train_end", {})
        return history

    @contextlib.contextmanager
    def _at_work(self, run: loop.Run) -> Iterator[None]:
        """While `run` trains the model."""
        self._run = run
        try:
            yield
        finally:
            self._run = None

    def _hold_back(self, data: ArraySet, split: float | NDArray[np.intp], form: Form) -> tuple[ArraySet, ArraySet]:
        """Data to train on, and to validate on."""
        assert self.loss is not None
        if not isinstance(split, float):
            outside = split[(split < 0) | (split >= len(data))]
            if len(outside):
                raise ValueError(
                    f"validation_split: expected indices from 0 to {len(data) - 1} because x has {len(data)} samples, "
                    f"got {outside[0]}"
                )
            return data.hold_back(split)
        kept, held = data.split(split)
        one, other = (classes_in(self.loss, *part.targets(), form.output_shape) for part in (kept, held))
        if len(kept) and len(held) and one is not None and other is not None and (one != other).any():
            parts = (one & ~other, f"{len(held)} held back"), (other & ~one, f"{len(kept)} others")
            missing = " and ".join(
                f"no sample of {_listed(classes)} among the {part}" for classes, part in parts if classes.any()
            )
            warnings.warn(
                f"validation_split: expected every class in both parts, got {missing}; the last samples are held back, "
                f"as in Keras: shuffle x and y together before, or pass the indices of the samples to hold back",
                UserWarning,
                stacklevel=4,  # the line that calls fit
            )
        return kept, held

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

    @usage.alone("train_on_batch changes the weights", outermost=True)
    def train_on_batch(self, x: Array, y: Any, *, lengths: Any = None, sample_weight: Any = None) -> list[float]:
        """One update on one batch; returns its loss before the update, and the metrics.

        Raises
        ------
        FloatingPointError
            As from `fit`; nothing has changed then.
        """
        optimizer, loss = self._compiled()
        batch = self._check_batch(Unchecked(x, y, lengths, sample_weight))
        tally = loop.Tally(self, loss, self.metrics)
        loop.train_step(self, loss, optimizer, batch, tally)
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
        with self._usage.call("evaluate", alone=self._why_alone()) as call:
            self._compiled()
            batch_size = _batch_size(batch_size, 128)
            data, form = self._data(Unchecked(x, y, lengths, sample_weight), None, None, decide=False)
            if form is not None:
                self._settle(form, decide_dtype=False)
            if data.count == 0:
                raise ValueError("x: expected at least one sample, got 0")
            # Another evaluation may be counting with the model's metrics: in another thread, or around this one.
            metrics = self.metrics if call.first and not call.nested else copy.deepcopy(self.metrics)
            found = self._evaluate(data, batch_size, metrics, apart=call.nested)
        return found if checks.flag("return_dict", return_dict) else list(found.values())

    def _evaluate(
        self, data: ArraySet | StreamSet, batch_size: int, metrics: Sequence[Metric], *, apart: bool
    ) -> dict[str, float]:
        """Loss and metrics by name; `apart` from the states of the call around it."""
        assert self.loss is not None
        with self._with_own_states() if apart else contextlib.nullcontext():
            return loop.evaluate(self, self.loss, data, batch_size, metrics)

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
        batch_size = _batch_size(batch_size, 128)
        self._require_built()
        with self._usage.call("predict", alone=self._why_alone()) as call:
            if not call.nested:
                return self._predict(x, batch_size, lengths)
            with self._with_own_states():
                return self._predict(x, batch_size, lengths)

    def _predict(self, x: Array, batch_size: int, lengths: Any) -> Any:
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


def read_model(
    path: str | os.PathLike[str], *, compile: bool = True, format: str | None = None, **options: Any
) -> tuple[Sequential, tuple[Assumption, ...]]:
    """`load_model`, which returns what had to be assumed instead of warning about it."""
    kind = formats.kind_of_file(path) if format is None else checks.choice("format", format, formats.KINDS)
    if kind == "fastgru":
        if options:
            raise TypeError(f"{min(options)}: expected no options because the file is fastgru's own, got some")
        config, tensors = native.load(path)
        return Sequential.from_file(path, config if compile else {**config, "compile": None}, tensors), ()
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
        The kind of file, a key of `fastgru.formats.KINDS`, for those whose contents do not show it.
    **options
        What the kind of file leaves open, as its reader takes it: see `fastgru.formats.torch.read`.

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


def _batch_size(value: int | None, default: int) -> int:
    return default if value is None else checks.integer("batch_size", value, least=1)


def _split(name: str, value: Any) -> float | NDArray[np.intp]:
    """What to hold back: a fraction from 0 to below 1, or the indices of some samples."""
    if not isinstance(value, (np.ndarray, list, tuple)) or np.ndim(value) == 0:
        return checks.number(name, value, least=0, below=1)
    indices = checks.array(name, value)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a number, or integers (K,), got {indices.dtype} of shape {indices.shape}")
    if len(np.unique(indices)) < len(indices):
        raise ValueError(f"{name}: expected different indices, got some twice")
    return indices.astype(np.intp)


def _listed(classes: NDArray[np.bool_]) -> str:
    """Numbers of classes for a message."""
    numbers = np.flatnonzero(classes)
    shown = ", ".join(map(str, numbers[:8]))
    return f"class {shown}{', ...' if len(numbers) > 8 else ''}"


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
