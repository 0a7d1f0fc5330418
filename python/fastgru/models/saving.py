"""Models and files: what a model hands to `fastgru.formats`, and how it is made again from what they read.

A model's own files, copies and pickles are made in one way, and so is the state of a training at work, from which it
can be resumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import formats, losses, metrics, optimizers, schedules
from fastgru._native._cpu_features import __version__
from fastgru._support import checks
from fastgru._support.files import check_path
from fastgru._training import loop
from fastgru.formats import native
from fastgru.formats.boundary import reading
from fastgru.formats.description import LayerDescription, ModelDescription, TrainingDescription
from fastgru.layers import from_config
from fastgru.layers.base import strip_prefix
from fastgru.models.compiled import Compiled
from fastgru.models.network import Form

Array = NDArray[Any]


class Saved(Compiled):
    """A compiled chain that can be written to files, copied and pickled.

    Attributes
    ----------
    stop_training : bool
        Set by a callback, it ends the training after the epoch.
    """

    def __init__(
        self, layers: Iterable[Any] | None = None, *, dtype: str | None = None, name: str = "sequential"
    ) -> None:
        super().__init__(layers, dtype=dtype, name=name)
        self.stop_training = False
        self._run: loop.Run | None = None  # while it is trained

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
        with self._usage.call("save"):
            self._save(path, format, include_optimizer)

    def _save(self, path: str | os.PathLike[str], format: str | None, include_optimizer: bool) -> None:
        kind = formats.kind_of_name(path) if format is None else checks.choice("format", format, formats.KINDS)
        compiled = checks.flag("include_optimizer", include_optimizer)
        if kind == "fastgru":
            native.save(path, *self._to_checkpoint(compiled=compiled))
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
        with self._usage.call("describe"):
            return self._describe()

    def _describe(self) -> ModelDescription:
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
        check_path(path)
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
        with reading(path):
            self.set_weights(list(found.values()))

    @classmethod
    def from_description(cls, description: ModelDescription) -> Self:
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
        known = vars(Saved())
        own = {name: value for name, value in vars(self).items() if name not in known}
        places = {
            name: place for name, value in own.items() for place, layer in enumerate(self.layers) if value is layer
        }
        others = {name: value for name, value in own.items() if name not in places}
        with self._usage.call("a copy"):
            config, tensors = self._to_checkpoint()
            # A pickle reads the arrays after this has returned.
            return _remake, (
                type(self),
                config,
                {name: array.copy() for name, array in tensors.items()},
                places,
                others,
            )

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
        bad = [name for name, weight in self.views(self.parameters).items() if not np.isfinite(weight).all()]
        if bad:
            raise FloatingPointError(
                f"{os.fspath(path)}: expected finite weights to write a checkpoint of, got others in {', '.join(bad)}; "
                f"the file is left as it was"
            )
        config, tensors = self._to_checkpoint()
        config["training"], arrays = native.split_arrays("training", self._run.get_state())
        tensors |= {f"training/{name}": array for name, array in arrays.items()}
        native.save(path, config, tensors)

    def _read_training(self, path: str | os.PathLike[str], run: loop.Run, form: Form | None) -> _Saved:
        """The model and the state of the training that `save_training` wrote, if this training can go on from it.

        Nothing of this model changes; `form` is what it will be, where data has decided that.
        """
        config, tensors = native.load(path)
        if "training" not in config:
            raise ValueError(
                f"resume_from: expected a file of callbacks.ModelCheckpoint, got {os.fspath(path)}, a model without "
                f"the state of a training"
            )
        saved = Saved.from_file(path, config, tensors)
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
        with reading(path, _NO_STATE):
            state = native.join_arrays(config["training"], strip_prefix(tensors, "training/"))
            run.require_sound(state, saved.get_weights())
        run.require_same(state)
        return _Saved(path, saved, state)

    def _go_on_from(self, saved: _Saved, run: loop.Run) -> None:
        """Take on what `_read_training` found."""
        with reading(saved.path, _NO_STATE):
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
    def from_checkpoint(cls, config: dict[str, Any], tensors: dict[str, Array]) -> Self:
        """The model that `native.load` found in a file of this package's own."""
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

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], config: dict[str, Any], tensors: dict[str, Array]) -> Self:
        """The same, for what stood in the file at `path`: whatever is wrong is a ModelFileError that names it."""
        with reading(path, "not a model that this version can make"):
            return cls.from_checkpoint(config, tensors)

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


def _remake(
    cls: type[Saved],
    config: dict[str, Any],
    tensors: dict[str, Array],
    places: dict[str, int],
    others: dict[str, Any],
) -> Saved:
    """What `Saved.__reduce__` took apart, without calling the constructor of a class of the user's own."""
    found = Saved.from_checkpoint(config, tensors)
    model = cls.__new__(cls)
    vars(model).update(vars(found) | others | {name: found.layers[place] for name, place in places.items()})
    return model


class _Saved(NamedTuple):
    """What a file of `ModelCheckpoint` held."""

    path: str | os.PathLike[str]
    model: Saved
    state: dict[str, Any]  # of the training


#: Says of a file that its state of a training was not written by a training.
_NO_STATE = "its state of training is not one"


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
