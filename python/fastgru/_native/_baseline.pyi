from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__compiler__: str
__lanes__: int
ACTIVATIONS: tuple[str, ...]
RECURRENT_ACTIVATIONS: tuple[str, ...]

_Array: TypeAlias = NDArray[Any]

class GRUTape:
    def __init__(self) -> None: ...
    @property
    def recorded(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    def clear(self) -> None: ...

def gru_forward(
    x: _Array,
    kernel: _Array,
    recurrent_kernel: _Array,
    bias: _Array | tuple[_Array, _Array] | None,
    initial_state: _Array | None,
    activation: str,
    recurrent_activation: str,
    reset_after: bool,
    go_backwards: bool,
    lengths: _Array | None,
    padded_outputs: str,
    output_order: str,
    recurrent_mask: _Array | None,
    weight_layout: str,
    return_sequences: bool,
    out: _Array | None,
    tape: GRUTape | None,
) -> tuple[_Array | None, _Array]: ...
def gru_backward(
    tape: GRUTape,
    d_outputs: _Array | None,
    d_state: _Array | None,
    input_gradient: bool | _Array,
    inputs: tuple[_Array, _Array, _Array] | None,
    d_kernel: _Array | None,
    d_recurrent_kernel: _Array | None,
    d_bias: _Array | None,
) -> tuple[_Array | None, _Array, _Array, _Array, _Array | None]: ...
def dense_forward(x: _Array, kernel: _Array, bias: _Array | None, rows: _Array | None) -> _Array: ...
def dense_backward(
    x: _Array,
    kernel: _Array,
    d_y: _Array,
    rows: _Array | None,
    input_gradient: bool,
    d_kernel: _Array | None,
    d_bias: _Array | None,
) -> tuple[_Array | None, _Array, _Array]: ...
def softmax(logits: _Array) -> _Array: ...
def softmax_cross_entropy(
    logits: _Array, labels: _Array, gradient: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], _Array | None]: ...
def adam(
    parameters: _Array,
    gradient: _Array,
    m: _Array,
    v: _Array,
    v_max: _Array | None,
    step: int,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    amsgrad: bool,
    form: str,
    weight_decay: float,
    scale: float,
    clip: float | None,
) -> None: ...
def sgd(
    parameters: _Array,
    gradient: _Array,
    m: _Array | None,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    form: str,
    weight_decay: float,
    scale: float,
    clip: float | None,
) -> None: ...
def rmsprop(
    parameters: _Array,
    gradient: _Array,
    v: _Array,
    m: _Array | None,
    a: _Array | None,
    learning_rate: float,
    rho: float,
    momentum: float,
    epsilon: float,
    centered: bool,
    form: str,
    weight_decay: float,
    scale: float,
    clip: float | None,
) -> None: ...
def sum_of_squares(x: _Array) -> float: ...
def all_are_classes(numbers: NDArray[np.int64], classes: int) -> bool: ...
def embedding_backward(tokens: _Array, d_y: _Array, d_table: _Array) -> None: ...
def activate(x: _Array, name: str) -> _Array: ...
def set_num_threads(count: int) -> None: ...
def get_num_threads() -> int: ...
def default_threads(root: str = "") -> int: ...
def cpu_quota(root: str = "") -> int: ...
def bytes_allocated() -> int: ...
