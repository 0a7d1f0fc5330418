"""How much faster is a PyTorch program with `fastgru.torch.accelerate`?

The same model trains on one batch in this process, unchanged and accelerated in turn. PyTorch's own operators use all
threads or one. After their work PyTorch's threads spin for up to 15 ms and compete with fastgru's kernels for the
processors, so one thread for PyTorch can be the faster setting.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fastgru
import numpy as np

from benchmarks import answers
from benchmarks.harness import COOL_DOWN_SECONDS, Crew, log, median, repeats_for, spread
from benchmarks.options import Options
from benchmarks.report import Result, duration

if TYPE_CHECKING:
    import torch

TITLE = "PyTorch with `fastgru.torch.accelerate`: a training step of GRU, Linear, cross-entropy and fused Adam"
COLUMNS = (
    *("shape", "GRU", "PyTorch", "its 1 thread", "accelerated", "PyTorch's 1 thread"),
    *("times as fast", "best of each", "at most", "spread", "of it not the GRU"),
)

STEPS, FEATURES, CLASSES = 28, 28, 10
#: (N, H)
SHAPES = tuple((rows, units) for units in (32, 64, 128) for rows in (32, 128, 512))
QUICK_SHAPES = ((32, 64), (128, 128))
#: Training steps whose losses are compared before anything is timed.
COMPARED = 5


@dataclass(frozen=True)
class Variant:
    """A type of GRU and of input."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    packed: bool = False  # lengths from 1 to T, evenly spaced

    def lengths(self, rows: int) -> torch.Tensor:
        """Return the length of each row."""
        import torch

        return torch.linspace(1 if self.packed else STEPS, STEPS, rows).round().long()


VARIANTS = (
    Variant("one layer"),
    Variant("two layers", {"num_layers": 2}),
    Variant("bidirectional", {"bidirectional": True}),
    Variant("packed, T/2 in the mean", packed=True),
)


class Turn:
    """A measured program in this process, with PyTorch's operators on `torch_threads` threads."""

    def __init__(self, torch_threads: int) -> None:
        self.torch_threads = torch_threads
        self.seconds: list[float] = []

    def step(self) -> torch.Tensor:
        """Run the measured work."""
        raise NotImplementedError

    def measure(self) -> float:
        """Warm up and measure: seconds per step."""
        import torch

        torch.set_num_threads(self.torch_threads)
        time.sleep(COOL_DOWN_SECONDS)
        begin = time.perf_counter()
        self.step()
        repeats = repeats_for(time.perf_counter() - begin)
        for timed in (False, True):
            begin = time.perf_counter()
            for _ in range(repeats):
                self.step()
            if timed:
                self.seconds.append((time.perf_counter() - begin) / repeats)
        return self.seconds[-1]


class Training(Turn):
    """A model, its optimizer and a batch."""

    def __init__(
        self, gru: torch.nn.GRU, head: torch.nn.Module, variant: Variant, rows: int, torch_threads: int
    ) -> None:
        import torch

        super().__init__(torch_threads)
        self.gru, self.head = gru, head
        random = torch.Generator().manual_seed(0)
        self.x: Any = torch.randn(rows, STEPS, FEATURES, generator=random)
        if variant.packed:
            self.x = torch.nn.utils.rnn.pack_padded_sequence(
                self.x, variant.lengths(rows), batch_first=True, enforce_sorted=False
            )
        self.labels = torch.randint(CLASSES, (rows,), generator=random)
        self.loss_of = torch.nn.functional.cross_entropy
        # PyTorch's fastest variant on CPUs.
        self.optimizer = torch.optim.Adam([*gru.parameters(), *head.parameters()], fused=True)

    def state(self) -> torch.Tensor:
        """Return the last state of the last layer, of both directions (N, directions * H)."""
        _, states = self.gru(self.x)
        return states[-2:].transpose(0, 1).flatten(1) if self.gru.bidirectional else states[-1]

    def step(self) -> torch.Tensor:
        """Run forward, loss, backward and Adam."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.head(self.state()), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss


class WithoutGRU(Training):
    """A step without the GRU: the GRU's state and gradients are given."""

    def __init__(self, whole: Training, variant: Variant, rows: int) -> None:
        super().__init__(copy.deepcopy(whole.gru), copy.deepcopy(whole.head), variant, rows, whole.torch_threads)
        self._state = whole.state().detach().requires_grad_()
        self._gradients = [parameter.detach().clone() for parameter in self.gru.parameters()]

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        self._state.grad = None
        loss = self.loss_of(self.head(self._state), self.labels)
        loss.backward()
        for parameter, gradient in zip(self.gru.parameters(), self._gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return loss


class MatrixProduct(Turn):
    """PyTorch's sgemm, as a measure of the processor."""

    size = 1536

    def __init__(self, torch_threads: int) -> None:
        import torch

        super().__init__(torch_threads)
        self.a, self.b = torch.randn(2, self.size, self.size)

    def step(self) -> torch.Tensor:
        return self.a @ self.b

    def flops_per_second(self) -> float:
        """Return the median throughput."""
        return 2.0 * self.size**3 / median(self.seconds)


def product_flops(gru: torch.nn.GRU, variant: Variant, rows: int) -> float:
    """Return the flops of a step's matrix products: forward, and backward to weights, states and, above x, inputs."""
    directions, units = 2 if gru.bidirectional else 1, gru.hidden_size
    steps = int(variant.lengths(rows).sum())
    depths = 0
    for layer in range(gru.num_layers):
        features = gru.input_size if layer == 0 else directions * units
        depths += 2 * (features + units) + units + (features if layer > 0 else 0)
    return 2.0 * steps * directions * 3 * units * depths


def contenders(variant: Variant, rows: int, units: int, threads: int) -> dict[str, Any]:
    """Return PyTorch and accelerated models, the work besides the GRU, and sgemm, after comparing the losses."""
    import fastgru.torch
    import torch

    torch.manual_seed(0)
    gru = torch.nn.GRU(FEATURES, units, batch_first=True, **variant.options)
    head = torch.nn.Linear(units * (2 if gru.bidirectional else 1), CLASSES)
    made: dict[str, Any] = {}
    for name, accelerated, torch_threads in (
        ("pytorch", False, threads),
        ("pytorch-1", False, 1),
        ("accelerated", True, threads),
        ("accelerated-1", True, 1),
    ):
        own = copy.deepcopy(gru)
        made[name] = Training(
            fastgru.torch.accelerate(own) if accelerated else own, copy.deepcopy(head), variant, rows, torch_threads
        )
    losses = {name: np.array([training.step().item() for _ in range(COMPARED)]) for name, training in made.items()}
    for name in list(losses)[1:]:
        answers.check({"losses": losses["pytorch"]}, {"losses": losses[name]}, ("losses",))
    made["without-gru"] = WithoutGRU(made["accelerated-1"], variant, rows)
    made["sgemm"] = MatrixProduct(threads)
    return made


def run(options: Options, crew: Crew) -> Result:
    """Measure PyTorch with and without fastgru."""
    del crew
    if importlib.util.find_spec("torch") is None:
        return Result("dropin", TITLE, COLUMNS, [], [], ["skipped: PyTorch is not installed"])
    import torch

    before = torch.get_num_threads()
    fastgru.set_num_threads(options.threads)
    table, rows = [], []
    for count, units in QUICK_SHAPES if options.quick else SHAPES:
        log(f"dropin, N={count}, H={units}")
        for variant in VARIANTS:
            turns = contenders(variant, count, units, options.threads)
            for _ in range(options.rounds):
                for training in turns.values():
                    training.measure()
            seconds = {name: median(training.seconds) for name, training in turns.items()}
            theirs, ours = (min(seconds[name], seconds[f"{name}-1"]) for name in ("pytorch", "accelerated"))
            rest = seconds["without-gru"]
            products = product_flops(turns["pytorch"].gru, variant, count) / turns["sgemm"].flops_per_second()
            ratio = {
                "times_as_fast": seconds["pytorch"] / seconds["accelerated"],
                "best_of_each": theirs / ours,
                "at_most": theirs / (rest + products),
            }
            shape = f"N={count} T={STEPS} F={FEATURES} H={units}"
            widest = max(
                spread(turns[name].seconds) for name in ("pytorch", "pytorch-1", "accelerated", "accelerated-1")
            )
            cells = [
                *(duration(seconds[name]) for name in ("pytorch", "pytorch-1", "accelerated", "accelerated-1")),
                *(f"{value:.1f}" for value in ratio.values()),
                *(f"{widest:.0%}", f"{rest / ours:.0%}"),
            ]
            table.append([shape, variant.name, *cells])
            all_seconds = {name: training.seconds for name, training in turns.items()}
            rows.append({"shape": shape, "gru": variant.name, **ratio, "skipped": "", "seconds": all_seconds})
    torch.set_num_threads(before)
    notes = [
        f"PyTorch {torch.__version__} and fastgru on {options.threads} threads. The columns with one thread have "
        "PyTorch's own operators on one (`torch.set_num_threads(1)`), fastgru's kernels still on all.",
        "Times as fast: one line changed, the threads as they were. Best of each: each at its faster setting.",
        "At most: PyTorch's best beside a GRU that does nothing but its matrix products, at the speed of PyTorch's "
        f"product of {MatrixProduct.size} by {MatrixProduct.size}, plus what is not the GRU.",
        "The last column is what Linear, loss and Adam take of the best accelerated step: they are PyTorch's in both.",
    ]
    return Result("dropin", TITLE, COLUMNS, table, rows, notes)
