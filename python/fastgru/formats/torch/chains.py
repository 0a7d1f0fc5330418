"""From PyTorch's modules to a chain of layers, where nothing but names and shapes is known.

A state_dict says neither in which order modules are called nor what stands between them:

- A GRU's inputs are batch-major here whatever ``batch_first`` says, which is a matter of layout only.
- Outputs behind a sequence's end are zeros, as in packed sequences.
- Dropout is none: what acts in training only changes no prediction.
- What follows the last GRU, the activations, and the order where several fit, change the outputs. They are what an
  option says, or else an `Assumption`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgru.formats.description import (
    Assumption,
    LayerDescription,
    ModelDescription,
    UnsaidError,
    bidirectional_config,
)
from fastgru.formats.torch.modules import Module
from fastgru.formats.torch.options import POOLINGS

_MOST_TRIES = 10_000
_DEFAULT_NAMES = {"GRU": "gru", "Dense": "dense", "Embedding": "embedding"}


class _TooManyTriesError(ValueError):
    """The modules fit in so many ways that not all were tried."""


@dataclass(frozen=True)
class Chain:
    """Modules in a row, of which each takes what the one before gives.

    Attributes
    ----------
    modules : list of Module
    assumptions : list of Assumption
        About their order, and what each GRU receives of the one before.
    """

    modules: list[Module]
    assumptions: list[Assumption]

    @classmethod
    def of(cls, modules: list[list[Module]], *, ordered: bool) -> Chain:
        """The modules in the only order and meaning that fit, or if they are `ordered`, in their own.

        Raises
        ------
        ValueError
            None fits, or several do.
        """
        for any_order in (False, True) if ordered else (True,):
            found = _only_one(modules, any_order=any_order)
            if found is not None:
                return cls(found, [*([] if any_order else _assumed_order(found, modules)), *_assumed_steps(found)])
        sizes = "; ".join(" or ".join(map(_sizes, readings)) for readings in modules)
        raise ValueError(f"expected modules of which each takes what the one before gives, got {sizes:.1000}")

    @classmethod
    def said(cls, modules: list[list[Module]], order: Sequence[str]) -> Chain | None:
        """The modules in the order of these paths, each of which is one's; None if they do not fit in it.

        Who says the order says that of the GRUs too: nothing of it is assumed.
        """
        by_path = {readings[0].path: readings for readings in modules}
        found = _only_one([by_path[path] for path in order], any_order=False)
        return None if found is None else cls(found, [])

    @property
    def names(self) -> list[str]:
        """What options call the modules."""
        return [_name(module) for module in self.modules]

    @property
    def linears(self) -> list[str]:
        """What options call the Linears."""
        return [_name(module) for module in self.modules if module.class_name == "Dense"]

    def describe(
        self,
        dtype: str,
        return_sequences: bool | None,
        pooling: str | None,
        said: Mapping[str, str],
    ) -> ModelDescription:
        """The model, given what `fastgru.formats.torch.read` was told; `said` are activations by module's name."""
        assumptions = list(self.assumptions)
        last_gru = [module for module in self.modules if module.class_name == "GRU"][-1]
        if pooling is None and not return_sequences:
            pooling = "last_state"
            # One vector of a GRU that only reads forwards: its last state and its last step are the same.
            if return_sequences is None or _is_bidirectional(last_gru):
                assumptions.append(self._assumed_state(last_gru))
        self._require_activations(said)
        assumptions += self._assumed_activations(said)
        layers: list[LayerDescription] = []
        for module in self.modules:
            layers += _layers(module, pooling if module is last_gru else None, said.get(_name(module), "linear"))
        first = self.modules[0].takes
        shape = (None,) if first is None else (None, first)
        return ModelDescription(layers, shape, dtype=dtype, assumptions=tuple(assumptions))

    def _assumed_state(self, gru: Module) -> Assumption:
        """That the last GRU's last state is what counts."""
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

    def _require_activations(self, said: Mapping[str, str]) -> None:
        """Raise if no activation is said after a Linear before other layers."""
        for module in self.modules[:-1]:
            if module.class_name == "Dense" and _name(module) not in said:
                problem = (
                    f"a state_dict does not say which activations stand between the modules {_shown(self.modules)}"
                )
                unsaid = {name: "linear" for name in self.linears if name not in said}
                raise UnsaidError(problem, {"activations": {**said, **unsaid}})

    def _assumed_activations(self, said: Mapping[str, str]) -> list[Assumption]:
        names = [
            _name(module)
            for module in self.modules
            if module.class_name in ("GRU", "Dense") and _name(module) not in said
        ]
        if not names:
            return []
        example = {"activations": {**said, names[0]: "relu"}}
        options = {"activations": {**said, **dict.fromkeys(names, "linear")}}
        return [Assumption(f"no activation after {_enumerated(names)}", options, ((example, "or another one"),))]


# --- Orders that fit ------------------------------------------------------------------------------------------------


def _all_fitting(modules: list[list[Module]], *, any_order: bool) -> Iterator[list[Module]]:
    return _fitting(tuple(map(tuple, modules)), None, iter(range(_MOST_TRIES)), any_order=any_order)


def _fitting(
    rest: tuple[tuple[Module, ...], ...], before: Module | None, tries: Iterator[int], *, any_order: bool
) -> Iterator[list[Module]]:
    """Every way to go on with the rest of the modules; those in order first."""
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
    """The first chain, which must be the only one; None if there is none."""
    chains = _all_fitting(modules, any_order=any_order)
    try:
        found = next(chains, None)
        other = next(chains, None)
    except _TooManyTriesError as error:
        raise UnsaidError(str(error), {"order": [readings[0].path for readings in modules]}) from None
    if found is None or other is None:
        return found
    problem = f"its modules fit together as {_shown(found)} and as {_shown(other)}"
    orders = [_paths(chain) for chain in sorted((found, other), key=_called_otherwise)]
    if orders[0] == orders[1]:
        raise ValueError(f"{problem}, and no option says which")
    raise UnsaidError(problem, {"order": orders[0]})


def _called_otherwise(chain: list[Module]) -> int:
    """How many Linears of a chain have the name of an embedding."""
    return sum(module.class_name == "Dense" and "emb" in module.path.lower() for module in chain)


def _assumed_order(found: list[Module], modules: list[list[Module]]) -> list[Assumption]:
    """That modules are called in the order of the file, where another one fits as well.

    An embedding at the file's beginning is taken for one: orders in which its weights are a Linear's are no doubt.
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
    """The paths of a chain in another order that fits as well, for chains of many modules of the same sizes."""
    paths = _paths(chain)
    places: dict[tuple[int | None, int], int] = {}
    for place, module in enumerate(chain):
        first = places.setdefault((module.takes, module.gives), place)
        if first != place:
            paths[first], paths[place] = paths[place], paths[first]
            break
    return paths


def _assumed_steps(found: list[Module]) -> list[Assumption]:
    """That a GRU behind another receives every step of that one, and no state; who says the order confirms it."""
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


# --- From modules to layers -----------------------------------------------------------------------------------------


def _name(module: Module) -> str:
    return module.path or _DEFAULT_NAMES[module.class_name]


def _is_bidirectional(gru: Module) -> bool:
    return "forward/kernel" in gru.layers[0]


def _layers(module: Module, pooling: str | None, activation: str) -> list[LayerDescription]:
    """A module's layers; `pooling` is None where a GRU gives every step's state."""
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
        pooling = "last_state"  # which is the same
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
