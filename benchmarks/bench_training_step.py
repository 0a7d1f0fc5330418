"""How fast is a training step of the tutorial's model (forward, loss, backward, Adam), and `fit` around it?

    python -m benchmarks.bench_training_step [--batch-sizes 32 128 1024] [--rounds 15] [--json]

Contenders: fastgru's step alone, the same through `fit` with the data in memory, and PyTorch where it is installed.
From the same weights their losses are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json

import fastgru
import numpy as np
from fastgru import Sequential, layers

from benchmarks.harness import Contender, interleave, machine, sgemm, sgemm_rate

STEPS, FEATURES, UNITS, CLASSES = 28, 28, 64, 10
#: Products a sample: forward 6H(F+H), backward 6H(F+2H) a step without the input's gradient, and the head three times.
FLOPS = STEPS * 6 * UNITS * (FEATURES + UNITS + FEATURES + 2 * UNITS) + 3 * 2 * UNITS * CLASSES


def make_model() -> Sequential:
    """The tutorial's model."""
    fastgru.set_seed(0)
    model = Sequential([layers.GRU(UNITS, input_shape=(STEPS, FEATURES)), layers.Dense(CLASSES, activation="softmax")])
    model.compile(metrics=["accuracy"])
    return model


def torch_step(model: Sequential, x: np.ndarray, y: np.ndarray):
    """The same model and weights in PyTorch: a function that trains on the batch once, and returns the loss."""
    import torch

    torch.set_num_threads(fastgru.get_num_threads())

    def rows(array):  # Keras' z, r, h columns to PyTorch's r, z, n rows
        z, r, n = np.split(array, 3, axis=-1)
        return torch.from_numpy(np.concatenate([r, z, n], axis=-1).T.copy())

    kernel, recurrent, bias, head, head_bias = model.get_weights()
    gru = torch.nn.GRU(FEATURES, UNITS, batch_first=True)
    dense = torch.nn.Linear(UNITS, CLASSES)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(rows(kernel))
        gru.weight_hh_l0.copy_(rows(recurrent))
        gru.bias_ih_l0.copy_(rows(bias[:1])[:, 0])
        gru.bias_hh_l0.copy_(rows(bias[1:])[:, 0])
        dense.weight.copy_(torch.from_numpy(head.T.copy()))
        dense.bias.copy_(torch.from_numpy(head_bias))
    optimizer = torch.optim.Adam([*gru.parameters(), *dense.parameters()], lr=1e-3, fused=True)
    x_torch, y_torch = torch.from_numpy(x), torch.from_numpy(y)

    def step():
        optimizer.zero_grad(set_to_none=True)
        outputs, _ = gru(x_torch)
        loss = torch.nn.functional.cross_entropy(dense(outputs[:, -1]), y_torch)
        loss.backward()
        optimizer.step()
        return loss

    return step


def bench(batch: int, rounds: int) -> dict[str, object]:
    """Measure one batch size."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, STEPS, FEATURES), np.float32)
    y = rng.integers(0, CLASSES, batch)
    reference, stepping, fitting = make_model(), make_model(), make_model()
    expected = reference.train_on_batch(x, y)[0]

    batches = max(1, 4096 // batch)
    many_x, many_y = np.tile(x, (batches, 1, 1)), np.tile(y, batches)
    step = Contender("fastgru step", lambda: stepping.train_on_batch(x, y))
    fit = Contender("fastgru fit", lambda: fitting.fit(many_x, many_y, batch_size=batch, verbose=0))
    contenders = [sgemm(), step, fit]
    per_call = {"fastgru step": 1, "fastgru fit": batches, "PyTorch": 1}
    try:
        peer = torch_step(make_model(), x, y)
    except ImportError:
        pass
    else:
        loss = peer().item()
        assert abs(loss - expected) <= 1e-5 * expected, f"PyTorch's loss {loss} is not {expected}"
        contenders.append(Contender("PyTorch", peer))
    interleave(contenders, rounds)

    rate = sgemm_rate(contenders[0])
    rows = {}
    for contender in contenders[1:]:
        seconds = contender.median / per_call[contender.name]
        rows[contender.name] = {
            "microseconds": seconds * 1e6,
            "samples_per_second": batch / seconds,
            "share_of_sgemm": FLOPS * batch / seconds / rate,
            "spread": contender.spread,
        }
    return {"batch": batch, "sgemm_gflops": rate / 1e9, "contenders": rows}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 128, 256, 1024])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [bench(batch, arguments.rounds) for batch in arguments.batch_sizes]
    if arguments.json:
        print(json.dumps({"machine": machine(), "results": results}))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("| batch | contender | us a step | samples/s | share of sgemm | spread |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for result in results:
        for name, row in result["contenders"].items():
            print(
                f"| {result['batch']} | {name} | {row['microseconds']:.0f} | {row['samples_per_second']:,.0f} "
                f"| {row['share_of_sgemm']:.2f} | {row['spread']:.0%} |"
            )


if __name__ == "__main__":
    main()
