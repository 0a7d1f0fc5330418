"""Inference of a sequence of layers from the names and shapes of PyTorch modules.

A state_dict stores neither the order in which modules are called nor the operations between them. They are inferred:

- Inputs of a GRU are batch-major whatever ``batch_first`` was, because it changes only the layout.
- Outputs after the end of a sequence are zeros, as in packed sequences.
- There is no dropout, because it does not change predictions.
- The operation after the last GRU, the activations, and the order if several fit, change the outputs. They come from an
  option, or else they are an `Assumption`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgru.formats.description import (
    AmbiguousFileError,
    Assumption,
    LayerDescription,
    ModelDescription,
    bidirectional_config,
)
from fastgru.formats.torch.modules import Module
from fastgru.formats.torch.options import POOLINGS

_MOST_TRIES = 10_000
_DEFAULT_NAMES = {"GRU": "gru", "Dense": "dense", "Embedding": "embedding"}


class _TooManyTriesError(ValueError):
    """The modules fit in too many orders to try all of them."""


@dataclass(frozen=True)
class Chain:
    """A sequence of modules, each of which accepts the output of the one before.

    Attributes
    ----------
    modules : list of Module
    assumptions : list of Assumption
        On the order of the modules, and on what each GRU receives from the one before.
    """

    modules: list[Module]
    assumptions: list[Assumption]

    @classmethod
    def of(cls, modules: list[list[Module]], *, ordered: bool) -> Chain:
        """Return the modules in the only order in which they fit, or in their own order if they are `ordered`.

        Raises
        ------
        ValueError
            No order fits, or several do.
        """
        for any_order in (False, True) if ordered else (True,):
            found = _only_one(modules, any_order=any_order)
            if found is not None:
                return cls(found, [*([] if any_order else _assumed_order(found, modules)), *_assumed_steps(found)])
        sizes = "; ".join(" or ".join(map(_sizes, readings)) for readings in modules)
        raise ValueError(f"expected modules that each accept the output of the one before, got {sizes:.1000}")

    @classmethod
    def in_order(cls, modules: list[list[Module]], order: Sequence[str]) -> Chain | None:
        """Return the modules in the order of these paths, one for each module; None if they do not fit in this order.

        A given order also confirms how the GRUs are connected, so nothing is assumed.
        """
        by_path = {readings[0].path: readings for readings in modules}
        found = _only_one([by_path[path] for path in order], any_order=False)
        return None if found is None else cls(found, [])

    @property
    def names(self) -> list[str]:
        """The names of the modules in options."""
        return [_name(module) for module in self.modules]

    @property
    def linears(self) -> list[str]:
        """The names of the Linear modules in options."""
        return [_name(module) for module in self.modules if module.class_name == "Dense"]

    def describe(
        self,
        dtype: str,
        return_sequences: bool | None,
        pooling: str | None,
        activations: Mapping[str, str],
    ) -> ModelDescription:
        """Return the model, given options of `fastgru.formats.torch.read`, with activations by name of a module."""
        assumptions = list(self.assumptions)
        last_gru = [module for module in self.modules if module.class_name == "GRU"][-1]
        if pooling is None and not return_sequences:
            pooling = "last_state"
            # The final state and the output at the last step of a GRU that only reads forwards are the same.
            if return_sequences is None or _is_bidirectional(last_gru):
                assumptions.append(self._assumed_state(last_gru))
        self._require_activations(activations)
        assumptions += self._assumed_activations(activations)
        layers: list[LayerDescription] = []
        for module in self.modules:
            layers += _layers(module, pooling if module is last_gru else None, activations.get(_name(module), "linear"))
        first = self.modules[0].takes
        shape = (None,) if first is None else (None, first)
        return ModelDescription(layers, shape, dtype=dtype, assumptions=tuple(assumptions))

    def _assumed_state(self, gru: Module) -> Assumption:
        """The assumption that the module after the last GRU receives its final state."""
        name, place = _name(gru), self.modules.index(gru) + 1
        receiver = f"{_name(self.modules[place])} receives" if place < len(self.modules) else "the model returns"
        alternatives: list[tuple[Mapping[str, Any], str]] = [
            ({"return_sequences": True}, "every step's output"),
            ({"pooling": "mean"}, "output.mean(1)"),
            ({"pooling": "max"}, "output.amax(1)"),
        ]
        if _is_bidirectional(gru):
            what = f"the last states of both directions of {name}, torch.cat((h_n[-2], h_n[-1]), -1)"
            alternatives.insert(0, ({"pooling": "last_step"}, "output[:, -1]"))
        else:
            what = f"the last state of {name}, h_n[-1] or output[:, -1]"
        return Assumption(f"{receiver} {what}", {"pooling": "last_state"}, tuple(alternatives))

    def _require_activations(self, activations: Mapping[str, str]) -> None:
        """Raise if no activation is given for a Linear before other modules."""
        for module in self.modules[:-1]:
            if module.class_name == "Dense" and _name(module) not in activations:
                problem = f"a state_dict does not contain the activations between the modules {_shown(self.modules)}"
                missing = {name: "linear" for name in self.linears if name not in activations}
                raise AmbiguousFileError(problem, {"activations": {**activations, **missing}})

    def _assumed_activations(self, activations: Mapping[str, str]) -> list[Assumption]:
        names = [
            _name(module)
            for module in self.modules
            if module.class_name in ("GRU", "Dense") and _name(module) not in activations
        ]
        if not names:
            return []
        example = {"activations": {**activations, names[0]: "relu"}}
        options = {"activations": {**activations, **dict.fromkeys(names, "linear")}}
        return [Assumption(f"no activation after {_enumerated(names)}", options, ((example, "or another one"),))]


# --- Possible orders ------------------------------------------------------------------------------------------------


def _all_fitting(modules: list[list[Module]], *, any_order: bool) -> Iterator[list[Module]]:
    return _fitting(tuple(map(tuple, modules)), None, iter(range(_MOST_TRIES)), any_order=any_order)


def _fitting(
    rest: tuple[tuple[Module, ...], ...], before: Module | None, tries: Iterator[int], *, any_order: bool
) -> Iterator[list[Module]]:
    """Every order in which the remaining modules fit; those in the given order first."""
    if not rest:
        yield []
        return
    for index in range(len(rest) if any_order else 1):
        for module in rest[index]:
            if before is not None and module.takes != before.gives:
                continue
            if next(tries, None) is None:
                raise _TooManyTriesError("too many modules of the same sizes to try their orders")
            others = rest[:index] + rest[index + 1 :]
            for chain in _fitting(others, module, tries, any_order=any_order):
                yield [module, *chain]


def _only_one(modules: list[list[Module]], *, any_order: bool) -> list[Module] | None:
    """The only order that fits; None if there is none, an error if there are several."""
    chains = _all_fitting(modules, any_order=any_order)
    try:
        found = next(chains, None)
        other = next(chains, None)
    except _TooManyTriesError as error:
        raise AmbiguousFileError(str(error), {"order": [readings[0].path for readings in modules]}) from None
    if found is None or other is None:
        return found
    problem = f"its modules fit together as {_shown(found)} and as {_shown(other)}"
    orders = [_paths(chain) for chain in sorted((found, other), key=_called_otherwise)]
    if orders[0] == orders[1]:
        raise ValueError(f"{problem}, and no option distinguishes the two")
    raise AmbiguousFileError(problem, {"order": orders[0]})


def _called_otherwise(chain: list[Module]) -> int:
    """The number of Linear modules whose name is that of an embedding."""
    return sum(module.class_name == "Dense" and "emb" in module.path.lower() for module in chain)


def _assumed_order(found: list[Module], modules: list[list[Module]]) -> list[Assumption]:
    """The assumption that modules are called in the order of the file, if another order fits as well.

    A possible embedding at the beginning of the file is not considered as a Linear in other orders.
    """
    paths = _paths(found)
    embedding = found[0] if found[0].class_name == "Embedding" else None
    if embedding is not None:
        modules = [[embedding] if readings[0].path == embedding.path else readings for readings in modules]
    try:
        orders = (_paths(chain) for chain in _all_fitting(modules, any_order=True))
        other = next((order for order in orders if order != paths), None)
    except _TooManyTriesError:
        other = _with_two_swapped(found)
    if other is None:
        return []
    what = f"the modules are called in the order of the file, {_shown(found)}"
    return [Assumption(what, {"order": paths}, (({"order": other}, "or another one that fits"),))]


def _with_two_swapped(chain: list[Module]) -> list[str]:
    """The paths in another order that fits as well, found by exchanging two modules of the same sizes."""
    paths = _paths(chain)
    places: dict[tuple[int | None, int], int] = {}
    for place, module in enumerate(chain):
        first = places.setdefault((module.takes, module.gives), place)
        if first != place:
            paths[first], paths[place] = paths[place], paths[first]
            break
    return paths


def _assumed_steps(found: list[Module]) -> list[Assumption]:
    """The assumption that a GRU receives all steps of the GRU before it, and no state; `order` confirms it."""
    grus = [module for module in found if module.class_name == "GRU"]
    return [
        Assumption(
            f"{_name(gru)} receives every step of {_name(before)} and begins with zeros", {"order": _paths(found)}, ()
        )
        for before, gru in itertools.pairwise(grus)
    ]


def _paths(chain: list[Module]) -> list[str]:
    return [module.path for module in chain]


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _shown(chain: list[Module]) -> str:
    return " -> ".join(f"{module.path} ({module.class_name})" for module in chain)


def _sizes(module: Module) -> str:
    takes = "tokens" if module.takes is None else module.takes
    return f"{module.path} ({module.class_name}, {takes} -> {module.gives})"


# --- Conversion of modules to layers ---------------------------------------------------------------------------------


def _name(module: Module) -> str:
    return module.path or _DEFAULT_NAMES[module.class_name]


def _is_bidirectional(gru: Module) -> bool:
    return "forward/kernel" in gru.layers[0]


def _layers(module: Module, pooling: str | None, activation: str) -> list[LayerDescription]:
    """The layers of a module; `pooling` is None if a GRU returns the output of every step."""
    name = _name(module)
    if module.class_name == "GRU":
        layers = _gru_layers(module, name, pooling)
    else:
        (weights,) = module.layers
        config: dict[str, Any] = {"units": module.gives, "activation": activation, "use_bias": "bias" in weights}
        if module.class_name == "Embedding":
            config = {"input_dim": len(weights["embeddings"]), "output_dim": module.gives}
        layers = [LayerDescription(module.class_name, name, config, weights)]
    if module.class_name != "Dense" and activation != "linear":
        layers.append(LayerDescription("Activation", f"{name}.activation", {"activation": activation}))
    return layers


def _gru_layers(module: Module, name: str, pooling: str | None) -> list[LayerDescription]:
    bidirectional = _is_bidirectional(module)
    if pooling == "last_step" and not bidirectional:
        pooling = "last_state"  # equal, and needs no layer
    described = []
    for number, weights in enumerate(module.layers):
        last = number + 1 == len(module.layers)
        config: dict[str, Any] = {
            "units": module.gives // (1 + bidirectional),
            "use_bias": any(name.endswith("bias") for name in weights),
            "return_sequences": not last or pooling != "last_state",
            "zero_output_for_mask": True,
        }
        if bidirectional:
            config = bidirectional_config((config, {**config, "go_backwards": True}))
        layer_name = name if number == 0 else f"{name}.l{number}"
        described.append(LayerDescription("Bidirectional" if bidirectional else "GRU", layer_name, config, weights))
    pooled = None if pooling is None else POOLINGS[pooling]
    if pooled is not None:
        described.append(LayerDescription(pooled, f"{name}.{pooling}", {}))
    return described
