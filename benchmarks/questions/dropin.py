"""What does `fastgru.torch.accelerate` bring a program of PyTorch's?

The same model, once as it is and once accelerated, trains on one batch in this process, turn by turn.
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

TITLE = "In PyTorch's place: a step of GRU, Linear, cross-entropy and fused Adam, after `fastgru.torch.accelerate`"
COLUMNS = ("shape", "GRU", "PyTorch", "accelerated", "times as fast", "spread", "of it not the GRU")

STEPS, FEATURES, CLASSES = 28, 28, 10
#: (N, H)
SHAPES = tuple((rows, units) for units in (32, 64, 128) for rows in (32, 128, 512))
QUICK_SHAPES = ((32, 64), (128, 128))
#: Steps of training whose losses are compared before anything is timed.
COMPARED = 5


@dataclass(frozen=True)
class Variant:
    """A kind of GRU and of input."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    packed: bool = False  # lengths from 1 to T, evenly


VARIANTS = (
    Variant("one layer"),
    Variant("two layers", {"num_layers": 2}),
    Variant("bidirectional", {"bidirectional": True}),
    Variant("packed, T/2 in the mean", packed=True),
)


class Training:
    """A model, its optimizer and its batch."""

    def __init__(self, gru: torch.nn.GRU, head: torch.nn.Module, variant: Variant, rows: int) -> None:
        import torch

        self.gru, self.head = gru, head
        random = torch.Generator().manual_seed(0)
        self.x: Any = torch.randn(rows, STEPS, FEATURES, generator=random)
        if variant.packed:
            lengths = torch.linspace(1, STEPS, rows).round().long()
            self.x = torch.nn.utils.rnn.pack_padded_sequence(self.x, lengths, batch_first=True, enforce_sorted=False)
        self.labels = torch.randint(CLASSES, (rows,), generator=random)
        self.loss_of = torch.nn.functional.cross_entropy
        # PyTorch's fastest on the CPU.
        self.optimizer = torch.optim.Adam([*gru.parameters(), *head.parameters()], fused=True)
        self.seconds: list[float] = []

    def state(self) -> torch.Tensor:
        """The last layer's last state, of both directions (N, directions * H)."""
        _, states = self.gru(self.x)
        return states[-2:].transpose(0, 1).flatten(1) if self.gru.bidirectional else states[-1]

    def step(self) -> torch.Tensor:
        """Forward, loss, backward and Adam."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.head(self.state()), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def measure(self) -> float:
        """A turn, warm: seconds a step."""
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


class WithoutGRU(Training):
    """What is left of a step without the GRU: its state and its gradients are there already."""

    def __init__(self, whole: Training, variant: Variant, rows: int) -> None:
        super().__init__(copy.deepcopy(whole.gru), copy.deepcopy(whole.head), variant, rows)
        self._state = whole.state().detach().requires_grad_()
        self._gradients = [parameter.detach().clone() for parameter in self.gru.parameters()]

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.head(self._state), self.labels)
        loss.backward()
        for parameter, gradient in zip(self.gru.parameters(), self._gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return loss


def contenders(variant: Variant, rows: int, units: int) -> tuple[Training, Training, Training]:
    """PyTorch's, the accelerated one, and what both do besides the GRU; their losses have been compared."""
    import fastgru.torch
    import torch

    torch.manual_seed(0)
    gru = torch.nn.GRU(FEATURES, units, batch_first=True, **variant.options)
    head = torch.nn.Linear(units * (2 if gru.bidirectional else 1), CLASSES)
    ours = fastgru.torch.accelerate(copy.deepcopy(gru))
    pair = Training(gru, head, variant, rows), Training(ours, copy.deepcopy(head), variant, rows)
    losses = [np.array([training.step().item() for _ in range(COMPARED)]) for training in pair]
    answers.check({"losses": losses[0]}, {"losses": losses[1]}, ("losses",))
    return *pair, WithoutGRU(pair[1], variant, rows)


def run(options: Options, crew: Crew) -> Result:
    """PyTorch with and without fastgru."""
    del crew
    if importlib.util.find_spec("torch") is None:
        return Result("dropin", TITLE, COLUMNS, [], [], ["skipped: PyTorch is not installed"])
    import torch

    torch.set_num_threads(options.threads)
    fastgru.set_num_threads(options.threads)
    table, rows = [], []
    for count, units in QUICK_SHAPES if options.quick else SHAPES:
        log(f"dropin, N={count}, H={units}")
        for variant in VARIANTS:
            turns = contenders(variant, count, units)
            for _ in range(options.rounds):
                for training in turns:
                    training.measure()
            theirs, ours, rest = (median(training.seconds) for training in turns)
            widest = max(spread(training.seconds) for training in turns[:2])
            shape = f"N={count} T={STEPS} F={FEATURES} H={units}"
            cells = [duration(theirs), duration(ours), f"{theirs / ours:.1f}", f"{widest:.0%}", f"{rest / ours:.0%}"]
            table.append([shape, variant.name, *cells])
            names = ("pytorch", "accelerated", "without_gru")
            seconds = {name: training.seconds for name, training in zip(names, turns, strict=True)}
            rows.append({"shape": shape, "gru": variant.name, "ratio": theirs / ours, "skipped": "", **seconds})
    notes = [
        f"PyTorch {torch.__version__}; both run the same program on {options.threads} threads.",
        "The last column is what Linear, loss and Adam take of the accelerated step: they are PyTorch's in both.",
    ]
    return Result("dropin", TITLE, COLUMNS, table, rows, notes)
