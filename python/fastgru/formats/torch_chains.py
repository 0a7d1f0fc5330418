"""From PyTorch's modules to a chain of layers, where nothing but names and shapes is known.

A state_dict says neither in which order modules are called nor what stands between them:

- A GRU's inputs are batch-major here whatever ``batch_first`` says, which is a matter of layout only.
- Outputs behind a sequence's end are zeros, as in packed sequences.
- Dropout is none: what acts in training only changes no prediction.
- What follows the last GRU, the activations, and the order where several fit, change the outputs. They are what an
  option says, or else an `Assumption`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgru.formats.description import Assumption, LayerDescription, ModelDescription
from fastgru.formats.torch_modules import Module

#: What may follow the last GRU -> the layer that computes it; None where the GRU itself does.
POOLINGS = {
    "last_state": None,
    "last_step": "LastStep",
    "mean": "GlobalAveragePooling1D",
    "max": "GlobalMaxPooling1D",
}
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
        About their order.
    """

    modules: list[Module]
    assumptions: list[Assumption]

    @classmethod
    def of(cls, modules: list[list[Module]], order: Sequence[str] | None, *, ordered: bool) -> Chain:
        """The modules in the only order and meaning that fit, or if they are `ordered`, in their own.

        Raises
        ------
        ValueError
            None fits, or several do.
        """
        if not any(reading.class_name == "GRU" for readings in modules for reading in readings):
            raise ValueError("expected an nn.GRU among its modules, got none")
        if order is not None:
            modules = _reordered(modules, order)
        if order is not None or ordered:
            found = _only_one(_all_fitting(modules, any_order=False))
            if found is not None:
                return cls(found, [] if order is not None else _assumed_order(found, modules))
        if order is None:
            found = _only_one(_all_fitting(modules, any_order=True))
            if found is not None:
                return cls(found, [])
        sizes = "; ".join(" or ".join(map(_sizes, readings)) for readings in modules)
        raise ValueError(f"expected modules of which each takes what the one before gives, got {sizes:.1000}")

    def describe(
        self,
        dtype: str,
        return_sequences: bool | None,
        pooling: str | None,
        activations: Sequence[str] | Mapping[str, str] | None,
    ) -> ModelDescription:
        """The model, given what `fastgru.formats.torch.read` was told."""
        assumptions = list(self.assumptions)
        last_gru = [module for module in self.modules if module.class_name == "GRU"][-1]
        if pooling is None and not return_sequences:
            pooling = "last_state"
            # One vector of a GRU that only reads forwards: its last state and its last step are the same.
            if return_sequences is None or _is_bidirectional(last_gru):
                assumptions.append(self._assumed_state(last_gru))
        said = self._activations(activations)
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

    def _activations(self, given: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
        """Module's name -> the activation after it, where that is said."""
        linears = [_name(module) for module in self.modules if module.class_name == "Dense"]
        if isinstance(given, Mapping):
            names = [_name(module) for module in self.modules]
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"activations: expected names of modules, {names!s:.500}, got {unknown[0]!r}")
            said = {name: activation or "linear" for name, activation in given.items()}
        elif given is not None:
            if isinstance(given, str) or len(given) != len(linears):
                raise ValueError(f"activations: expected {len(linears)}, one for each of {linears}, got {given!r}")
            said = dict(zip(linears, given, strict=True))
        else:
            said = {}
        for module in self.modules[:-1]:
            if module.class_name == "Dense" and _name(module) not in said:
                raise ValueError(
                    f"a state_dict does not say which activations stand between the modules {_shown(self.modules)}: "
                    f'say it with activations=["linear", ...], one for each of {linears}'
                )
        return said

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
        return [Assumption(f"no activation after {' and '.join(names)}", options, ((example, "or another one"),))]


# --- Orders that fit ------------------------------------------------------------------------------------------------


def _reordered(modules: list[list[Module]], order: Sequence[str]) -> list[list[Module]]:
    by_path = {readings[0].path: readings for readings in modules}
    if isinstance(order, str) or sorted(map(str, order)) != sorted(by_path):
        raise ValueError(f"order: expected all of {list(by_path)!s:.500}, got {order!r}")
    return [by_path[path] for path in order]


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
                raise _TooManyTriesError(
                    "too many modules of the same sizes to try their orders: say it with order=[...]"
                )
            others = rest[:index] + rest[index + 1 :]
            for chain in _fitting(others, module, tries, any_order=any_order):
                yield [module, *chain]


def _only_one(chains: Iterator[list[Module]]) -> list[Module] | None:
    """The first chain, which must be the only one; None if there is none."""
    found = next(chains, None)
    other = next(chains, None)
    if found is not None and other is not None:
        raise ValueError(
            f"its modules fit together as {_shown(found)} and as {_shown(other)}: say their order with order=[...]"
        )
    return found


def _assumed_order(found: list[Module], modules: list[list[Module]]) -> list[Assumption]:
    """That modules are called in the order of the file, where another one fits as well."""
    paths = [module.path for module in found]
    try:
        orders = ([module.path for module in chain] for chain in _all_fitting(modules, any_order=True))
        other = next((order for order in orders if order != paths), None)
    except _TooManyTriesError:
        other = paths[::-1]
    if other is None:
        return []
    what = f"the modules are called in the order of the file, {_shown(found)}"
    return [Assumption(what, {"order": paths}, (({"order": other}, "or another one that fits"),))]


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
            backward = {**config, "go_backwards": True}
            config = {
                "layer": {"class_name": "GRU", "config": config},
                "backward_layer": {"class_name": "GRU", "config": backward},
                "merge_mode": "concat",
            }
        layer_name = name if number == 0 else f"{name}.l{number}"
        described.append(LayerDescription("Bidirectional" if bidirectional else "GRU", layer_name, config, weights))
    pooled = None if pooling is None else POOLINGS[pooling]
    if pooled is not None:
        described.append(LayerDescription(pooled, f"{name}.{pooling}", {}))
    return described
