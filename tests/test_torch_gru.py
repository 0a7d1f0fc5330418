"""`fastgru.torch` compared with ``torch.nn.GRU``, if PyTorch is installed (CI installs it)."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import fastgru
import numpy as np
import peers
import pytest
from concurrency import in_threads
from error_bounds import norm_bound, relative_error
from fastgru import functional
from fastgru._native import kernels
from hypothesis import given, settings
from hypothesis import strategies as st

torch = peers.require("torch")

import fastgru.torch  # noqa: E402
from fastgru.torch import autograd  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

#: Two float32 computations, each within its bound of the exact result.
BOTH = 2
DOUBLE = 1e-10

scripting_is_old = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")


@pytest.fixture
def served(monkeypatch):
    """Counts kernel calls: one per layer and direction of a forward pass that does not use PyTorch's kernels."""
    calls = []
    forward = functional.gru_forward

    def counted(*args, **options):
        if options.get("out") is not None:
            calls.append(args)
        return forward(*args, **options)

    monkeypatch.setattr(functional, "gru_forward", counted)
    return calls


def make_pair(*sizes, dtype=torch.float32, seed=0, **options):
    """Return PyTorch's GRU and ours, with the same weights."""
    torch.manual_seed(seed)
    theirs = torch.nn.GRU(*sizes, **options).to(dtype)
    ours = fastgru.torch.GRU(*sizes, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.fixture
def pair():
    return make_pair(5, 7, num_layers=2, batch_first=True, bidirectional=True)


@pytest.fixture
def x():
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))


class Model(torch.nn.Module):
    """A model with a GRU in the middle."""

    def __init__(self, gru):
        super().__init__()
        self.gru = gru

    def forward(self, x):
        y, _ = self.gru(torch.cos(x))
        return torch.sin(y)


def all_gradients(gru, x, run=lambda gru, x: gru(x)[0]):
    gru.zero_grad()
    x = x.clone().requires_grad_()
    run(gru, x).square().sum().backward()
    return [x.grad] + [p.grad.clone() for p in gru.parameters()]


def assert_close(actual, expected, tolerance=1e-5):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- Results ------------------------------------------------------------------------------------------------------


@st.composite
def settings_of_a_gru(draw):
    layers = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    # Float32's error bound applies to the norm of a tensor. A tensor of very few numbers may be the result of
    # cancellation, with an error of the size of the terms; these are tested in double to 1e-10 only.
    least = (1, 1) if dtype == torch.float64 else (4, 8)
    return {
        "sizes": (draw(st.integers(least[0], 9)), draw(st.integers(least[1], 18)), layers),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.4, 1.0])) if layers > 1 else 0.0,
        "bidirectional": draw(st.booleans()),
        "dtype": dtype,
        "seed": draw(st.integers(0, 1000)),
    }


@st.composite
def calls_of_a_gru(draw):
    steps = draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["batch", "single", "sorted", "unsorted"]))
    lengths = draw(st.lists(st.integers(1, steps), min_size=1, max_size=6))
    return {
        "kind": kind,
        "steps": max(lengths) if "sorted" in kind else steps,
        "lengths": sorted(lengths, reverse=True) if kind == "sorted" else lengths,
        "initial": draw(st.booleans()),
        "training": draw(st.booleans()),
        "wanted": draw(st.sets(st.sampled_from(["x", "hx", "first", "last", "weights"]))),
        "used": draw(st.sets(st.sampled_from(["outputs", "state"]), min_size=1)),
    }


def run(gru, settings, call):
    """Return all results of a call and of its backward pass."""
    features, units, layers = settings["sizes"]
    directions = 2 if settings["bidirectional"] else 1
    rows, steps, kind, wanted = len(call["lengths"]), call["steps"], call["kind"], call["wanted"]
    random = torch.Generator().manual_seed(settings["seed"])

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64).to(settings["dtype"])

    x = normal(rows, steps, features) if kind != "single" else normal(steps, features)
    hx = normal(layers * directions, *([rows] if kind != "single" else []), units) if call["initial"] else None
    if kind != "single" and not settings["batch_first"]:
        x = x.transpose(0, 1)
    x.requires_grad_("x" in wanted)
    if hx is not None:
        hx.requires_grad_("hx" in wanted)
    for name, parameter in gru.named_parameters():
        ends = {"first": "ih_l0", "last": f"l{layers - 1}"}
        parameter.requires_grad_("weights" in wanted or any(k in wanted and ends[k] in name for k in ends))
    given_x = x
    if "sorted" in kind:
        given_x = pack_padded_sequence(
            x, torch.tensor(call["lengths"]), settings["batch_first"], enforce_sorted=kind == "sorted"
        )
    gru.train(call["training"])
    torch.manual_seed(settings["seed"])
    outputs, state = gru(given_x, hx)
    results = {"next random number": torch.rand(1), "state": state}
    if "sorted" in kind:
        assert isinstance(outputs, PackedSequence)
        assert torch.equal(outputs.batch_sizes, given_x.batch_sizes)
        assert outputs.sorted_indices is given_x.sorted_indices
        assert outputs.unsorted_indices is given_x.unsorted_indices
        outputs = outputs.data
    results["outputs"] = outputs
    loss = sum((results[name] * normal(*results[name].shape)).sum() for name in sorted(call["used"]))
    if loss.requires_grad:
        loss.backward()
    for name, tensor in {"x": x, "hx": hx, **dict(gru.named_parameters())}.items():
        results[f"gradient of {name}"] = tensor.grad if tensor is not None else None
    return results


@settings(deadline=None, max_examples=150)
@given(settings_of_a_gru(), calls_of_a_gru())
def test_results_match_pytorch(settings, call):
    options = {k: v for k, v in settings.items() if k != "sizes"}
    theirs, ours = make_pair(*settings["sizes"], **options)
    expected, actual = run(theirs, settings, call), run(ours, settings, call)
    features, units, layers = settings["sizes"]
    # A chain of operations through all layers is at most as long as that of one layer with all features and steps.
    features += layers * units * (2 if settings["bidirectional"] else 1)
    shape = (len(call["lengths"]), layers * call["steps"], features, units)
    dtype = np.float32 if settings["dtype"] == torch.float32 else np.float64
    bound = BOTH * norm_bound(dtype, shape, backward=True) if dtype == np.float32 else DOUBLE
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert (actual[name] is None) == (tensor is None), name
        if tensor is None:
            continue
        assert actual[name].shape == tensor.shape, name
        assert actual[name].dtype == tensor.dtype, name
        error = relative_error(actual[name].detach().numpy(), tensor.detach().numpy().astype(np.float64))
        assert error <= bound, name


# --- Memory layout --------------------------------------------------------------------------------------------------


def layouts(gru, kind, rows, steps, *, initial, training):
    """Return the strides of all results of a call, with and without a graph, and of all gradients of inputs."""
    batch_first, features, units = gru.batch_first, gru.input_size, gru.hidden_size
    states = (gru.num_layers * (2 if gru.bidirectional else 1), rows, units)
    first, second = (rows, steps) if batch_first else (steps, rows)
    x = torch.randn(first, second, features)
    if kind == "transposed":
        x = torch.randn(second, first, features).transpose(0, 1)
    if kind == "unbatched":
        x, states = torch.randn(steps, features), (states[0], units)
    x.requires_grad_()
    given = x
    if kind == "packed":
        lengths = torch.arange(rows) % steps + 1
        given = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    hx = torch.randn(states, requires_grad=True) if initial else None
    gru.train(training)
    found = {}
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            y, h_n = gru(given, hx)
        y = y.data if isinstance(y, PackedSequence) else y
        found |= {f"output {recorded}": y.stride(), f"h_n {recorded}": h_n.stride()}
    wanted = {"x": x, **({"hx": hx} if initial else {}), **dict(gru.named_parameters())}
    gradients = torch.autograd.grad(y.sin().sum() + h_n.cos().sum(), list(wanted.values()))
    for name, gradient in zip(wanted, gradients, strict=True):
        found[f"gradient of {name}"] = gradient.stride()
    return found


@pytest.mark.parametrize("kind", ["plain", "transposed", "unbatched", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_strides_match_pytorch(kind, batch_first, bidirectional, served):
    sizes = [(4, 6), (1, 6), (4, 1), (1, 1)]
    for (rows, steps), depth, initial, training in itertools.product(sizes, (1, 2), (False, True), (False, True)):
        options = {"num_layers": depth, "batch_first": batch_first, "bidirectional": bidirectional}
        pair = make_pair(5, 7, dropout=0.2 * (depth > 1), **options)
        theirs, ours = (layouts(gru, kind, rows, steps, initial=initial, training=training) for gru in pair)
        assert ours == theirs, (rows, steps, depth, initial, training)
    assert served


def test_outputs_with_the_batch_first_are_time_major_in_memory(served):
    """As with ``torch.nn.GRU``: code that flattens the transposed outputs by view depends on it."""
    gru = fastgru.torch.GRU(5, 7, batch_first=True)
    y, _ = gru(torch.randn(4, 6, 5))
    assert served
    assert y.transpose(0, 1).view(-1, 7).data_ptr() == y.data_ptr()
    y.mul_(2)  # a custom function's result that is a view could not be changed in place


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "batch_first": True, "bias": False}])
def test_gradients_are_those_of_finite_differences(options):
    _, gru = make_pair(3, 4, dtype=torch.float64, **options)
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    rows = x.shape[0 if gru.batch_first else 1]
    hx = torch.randn(layers, rows, 4, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*gru.named_parameters(), strict=True)

    def function(x, hx, *weights):
        return torch.func.functional_call(gru, dict(zip(names, weights, strict=True)), (x, hx))

    assert torch.autograd.gradcheck(function, (x, hx, *weights))


def test_gradients_of_packed_sequences_are_those_of_finite_differences():
    _, gru = make_pair(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)

    def function(x):
        outputs, state = gru(pack_padded_sequence(x, torch.tensor([2, 4, 1]), enforce_sorted=False))
        return outputs.data, state

    assert torch.autograd.gradcheck(function, (x,))


def test_tensors_of_any_layout_are_read(pair):
    theirs, ours = pair
    base = torch.randn(4, 6, 10)
    views = [base[..., ::2], base[..., 5:], base[:1, :, :5].expand(4, 6, 5), base[..., :5].flip(0), base[:, ::2, :5]]
    views.append(torch.complex(base, base).conj().imag[..., :5])  # its sign is not applied to its memory
    for view in views:
        assert_close(ours(view), theirs(view))


def test_nan_propagates_as_in_pytorch(pair, x):
    theirs, ours = pair
    x[1, 3, 2] = torch.nan
    x[2, 1, 0] = torch.inf
    with torch.no_grad():
        assert torch.equal(ours(x)[0].isnan(), theirs(x)[0].isnan())


def test_threads_do_not_change_a_bit(pair, x):
    _, ours = pair
    results = []
    for threads in (1, 3):
        fastgru.set_num_threads(threads)
        results.append([*ours(x), *all_gradients(ours, x)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_python_threads_can_share_a_module(x):
    _, gru = make_pair(5, 7)
    expected = torch.autograd.grad(gru(x)[0].sum(), gru.weight_hh_l0)[0]
    wrong = []

    def work():
        for _ in range(20):
            found = torch.autograd.grad(gru(x)[0].sum(), gru.weight_hh_l0)[0]
            if not torch.equal(found, expected):
                wrong.append(found)

    in_threads(4, work)
    assert not wrong


def test_python_threads_can_differentiate_one_graph():
    # A tape serves one call at a time: a second thread used to raise.
    gru = fastgru.torch.GRU(8, 64, batch_first=True)
    loss = gru(torch.randn(64, 50, 8))[0].sum()
    found = []

    def work():
        for _ in range(10):
            found.extend(torch.autograd.grad(loss, gru.weight_hh_l0, retain_graph=True))

    in_threads(4, work)
    assert len(found) == 40
    assert all(torch.equal(found[0], gradient) for gradient in found)


def test_wrong_arguments_raise_pytorchs_errors(pair, x, served):
    theirs, ours = pair
    cases = [
        (torch.randn(4, 6, 4),),
        (x.double(),),
        (torch.randn(2, 3, 4, 5),),
        (x, torch.randn(4, 3, 7)),
        (x, torch.randn(4, 7)),
        (x[0], torch.randn(4, 1, 7)),
        (x, torch.randn(4, 4, 7).double()),
        (torch.randn(4, 0, 5),),
    ]
    for case in cases:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            theirs(*case)
        with pytest.raises(expected.type, match=re.escape(str(expected.value))):
            ours(*case)
    with pytest.raises(ValueError, match="proj_size"):
        fastgru.torch.GRU(5, 7, proj_size=3)
    assert not served


@pytest.mark.parametrize("shape", [(20, 7), (7, 21), (21, 6)])
def test_weights_of_wrong_shapes_raise_pytorchs_errors(x, shape, served):
    theirs, ours = make_pair(5, 7, batch_first=True)
    for gru in (theirs, ours):
        gru.weight_hh_l0.data = torch.ones(shape)
    with pytest.raises(RuntimeError) as expected:
        theirs(x)
    with pytest.raises(RuntimeError, match=re.escape(str(expected.value))):
        ours(x)
    assert not served


# --- In PyTorch's graph -------------------------------------------------------------------------------------------


def test_only_required_results_are_recorded(x, monkeypatch):
    _, gru = make_pair(5, 7, num_layers=2, batch_first=True)
    tapes, inputs = [], []
    forward, backward = functional.gru_forward, functional.gru_backward

    def watched_forward(*args, tape, **options):
        if "out" in options:
            tapes.append(tape)
        return forward(*args, tape=tape, **options)

    def watched_backward(*args, input_gradient, **options):
        inputs.append(input_gradient is not False)
        return backward(*args, input_gradient=input_gradient, **options)

    monkeypatch.setattr(functional, "gru_forward", watched_forward)
    monkeypatch.setattr(functional, "gru_backward", watched_backward)
    with torch.no_grad():
        assert not gru(x)[0].requires_grad
    with torch.inference_mode():
        gru(x)
    assert tapes == [None] * 4
    gru(x)[0].sum().backward()
    assert inputs == [True, False]  # a gradient for the input of the second layer, not for that of the first
    for name, parameter in gru.named_parameters():
        parameter.requires_grad_("l1" in name)
    tapes.clear()
    gru(x)
    assert [tape is None for tape in tapes] == [True, False]


def test_inference_tensors_are_read(pair, x, served):
    # With batch_first PyTorch works on a copy and can record it; calls left to PyTorch used to raise here.
    with torch.inference_mode():
        inference_x = x.clone()
    theirs, ours = pair
    assert_close(ours(inference_x), theirs(inference_x))
    assert not served
    with torch.no_grad():
        assert_close(ours(inference_x), theirs(inference_x))
    assert len(served) == 4


def test_a_graph_is_kept_for_as_long_as_pytorch_keeps_it(pair, x):
    for gru in pair:
        x = x.clone().requires_grad_()
        y = gru(x)[0].sum()
        (first,) = torch.autograd.grad(y, x, retain_graph=True)
        (second,) = torch.autograd.grad(y, x)
        assert torch.equal(first, second)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(y, x)


def test_in_place_changes_before_backward_raise(x):
    for gru in make_pair(5, 7):
        for change in (lambda x, _: x.add_(1), lambda _, gru: gru.weight_hh_l0.mul_(2)):
            x = torch.randn(4, 6, 5)
            y, _ = gru(x)
            with torch.no_grad():
                change(x, gru)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


def moved(tensor):
    """Its memory moves to shared memory, as when a state_dict is put into a queue."""
    tensor.share_memory_()


def freed(tensor):
    """Its memory is freed, then allocated again with the same numbers, as FSDP does with weights."""
    data = tensor.detach()
    kept, storage = data.clone(), tensor.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    unrelated.append(torch.full((size // 4,), torch.nan))  # probably in the same memory
    storage.resize_(size)
    data.data.copy_(kept)


unrelated = []


@pytest.mark.parametrize("relocate", [moved, freed])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_memory_may_move_between_forward_and_backward(options, relocate, served):
    plain = torch.nn.GRU(40, 96, batch_first=True, **options)
    ours = fastgru.torch.accelerate(copy.deepcopy(plain))
    for _ in range(3):
        x = torch.randn(9, 5, 40)
        gradients = []
        for module in (plain, ours):
            own = x.clone()
            outputs, _ = module(own)
            for tensor in (own, *module.parameters()):
                relocate(tensor)
            module.zero_grad()
            outputs.square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in module.parameters()])
        for expected, gradient in zip(*gradients, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
    unrelated.clear()
    assert served


def test_results_may_be_changed_in_place(pair, x):
    def changed(gru, x):
        y, state = gru(x)
        return torch.relu_(y).sum() + state.mul_(2).sum()

    theirs, ours = pair
    assert_close(all_gradients(ours, x, changed), all_gradients(theirs, x, changed), 1e-4)


@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()], ids=["constant gradients", "others"])
def test_second_derivatives_raise(pair, x, loss):
    x.requires_grad_()
    _, ours = pair
    (d_x,) = torch.autograd.grad(loss(ours(x)[0]), x, create_graph=True)
    (expected,) = torch.autograd.grad(loss(ours(x)[0]), x)
    assert torch.equal(d_x, expected)
    message = re.escape("fastgru.torch.GRU: expected first derivatives because its kernels have no others")
    with pytest.raises(RuntimeError, match=message):
        d_x.square().sum().backward()
    parameters = list(ours.parameters())
    for sources in ([x], parameters):  # PyTorch calls only the nodes on the path to them
        for differentiate in (torch.autograd.grad, lambda y, inputs: y.backward(inputs=inputs)):
            (d_x,) = torch.autograd.grad(loss(ours(x)[0]), x, create_graph=True)
            with pytest.raises(RuntimeError, match=message):
                differentiate(loss(ours(x)[0]) + d_x.square().sum(), sources)
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.functional.hessian(lambda x: loss(ours(x)[0]), x.detach())
    (d_x,) = torch.autograd.grad(loss(ours(x)[0]), x, create_graph=True)
    loss(ours(x)[0] * d_x.detach().mean()).backward()  # d_x is not differentiated


def test_batches_of_gradients_raise(pair, x):
    x.requires_grad_()
    y = pair[1](x)[0]
    message = re.escape("fastgru.torch.GRU: expected one gradient at a time")
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(y, x, torch.ones(2, *y.shape), is_grads_batched=True, retain_graph=True)
    with pytest.raises(RuntimeError, match=message):
        torch.func.vmap(lambda d: torch.autograd.grad(y, x, d, retain_graph=True))(torch.ones(2, *y.shape))


@contextlib.contextmanager
def copies():
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        yield


@pytest.mark.parametrize("way", ["reentrant", "not reentrant", "saved on the CPU", "saved as copies"])
def test_checkpointing_and_hooks_for_saved_tensors(pair, x, way):
    def through_hooks(gru, x):
        with torch.autograd.graph.save_on_cpu() if way == "saved on the CPU" else copies():
            return gru(x)[0]

    def through_checkpoint(gru, x):
        before = len(autograd._recordings)
        y = torch.utils.checkpoint.checkpoint(lambda x: gru(x)[0], x, use_reentrant=way == "reentrant")
        assert len(autograd._recordings) == before  # the purpose of checkpointing: no tapes before backward
        return y

    run = through_hooks if "saved" in way else through_checkpoint
    _, ours = pair
    for actual, expected in zip(all_gradients(ours, x, run), all_gradients(ours, x), strict=True):
        assert torch.equal(actual, expected)


def test_a_training_loop_allocates_no_tapes_after_its_first_steps():
    gru = fastgru.torch.GRU(28, 64, num_layers=2, batch_first=True)
    x = torch.randn(32, 28, 28)
    recordings = len(autograd._recordings)
    for step in range(6):
        loss = gru(x)[0].square().mean()
        loss.backward()
        assert len(autograd._recordings) == recordings  # although `loss` still references the graph
        if step == 2:
            before = kernels.bytes_allocated()
    assert kernels.bytes_allocated() == before


def test_unused_tapes_release_the_batch(x):
    gru = fastgru.torch.GRU(5, 7)
    array = x.numpy().copy()
    gru(torch.from_numpy(array))[0].sum().backward()
    assert sys.getrefcount(array) == 2


def test_the_interpreter_can_end_before_backward():
    program = "import torch, fastgru.torch; y = fastgru.torch.GRU(3, 4)(torch.ones(2, 2, 3))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- Copies, files and other operations on modules ----------------------------------------------------------------


def through_torch_save(gru):
    file = io.BytesIO()
    torch.save(gru, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda gru: pickle.loads(pickle.dumps(gru)), through_torch_save],
    ids=["copy", "deepcopy", "pickle", "torch.save"],
)
def test_copies_work_like_the_original(pair, x, copied, served):
    _, ours = pair
    all_gradients(ours, x)  # leaves unused tapes in its pool
    other = copied(ours)
    served.clear()
    assert type(other) is fastgru.torch.GRU
    assert torch.equal(other(x)[0], ours(x)[0])
    assert len(served) == 8


def test_states_move_between_pytorchs_and_ours(pair, x):
    theirs, ours = pair
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    ours.flatten_parameters()
    assert_close(ours(x), theirs(x))
    assert_close(ours.double()(x.double()), theirs.double()(x.double()), DOUBLE)
    torch.manual_seed(0)
    first = torch.nn.GRU(3, 4)
    torch.manual_seed(0)
    assert_close(fastgru.torch.GRU(3, 4).parameters(), first.parameters(), 0)


def test_an_optimizer_trains_it_as_pytorchs(pair, x):
    losses = []
    for gru in pair:
        optimizer = torch.optim.Adam(gru.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            loss = gru(x)[0].square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_write_to_data_is_seen(pair, x):
    theirs, ours = pair
    with torch.no_grad():
        for gru in pair:
            gru(x)
            gru.weight_hh_l1.data.mul_(2)
        assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("change", ["weight norm", "spectral norm", "pruning", "tied weights"])
def test_changed_parameters(pair, x, change, served):
    from torch.nn.utils import parametrizations, prune

    gradients = []
    for gru in pair:
        torch.manual_seed(0)
        if change == "weight norm":
            parametrizations.weight_norm(gru, "weight_hh_l0")
        elif change == "spectral norm":  # changes its own state each time the weight is looked at
            parametrizations.spectral_norm(gru, "weight_ih_l1")
        elif change == "pruning":
            prune.l1_unstructured(gru, "weight_hh_l0", 0.5)
        else:
            gru.weight_hh_l0_reverse = gru.weight_hh_l0
        gradients.append(all_gradients(gru, x))
    assert_close(*gradients, 1e-4)
    assert len(served) == 4


def test_modules_are_accelerated_in_place(x, served):
    class Subclass(torch.nn.GRU):
        pass

    shared = torch.nn.GRU(5, 5, batch_first=True)
    tied = torch.nn.GRU(5, 5, batch_first=True)
    tied.weight_hh_l0 = shared.weight_hh_l0
    seen = []
    tied.register_forward_hook(lambda *_: seen.append("hook"))
    inner = torch.nn.ModuleDict({"a": shared, "b": torch.nn.ModuleList([shared, tied]), "c": Subclass(5, 5)})
    model = torch.nn.ModuleList([inner, torch.nn.Linear(5, 2), torch.nn.LSTM(5, 5)])
    parameters, state = list(model.parameters()), list(model.state_dict())
    expected = tied(shared(x)[0])[0]

    assert fastgru.torch.accelerate(model) is model
    assert model[0]["a"] is shared
    assert model[0]["b"][0] is shared
    kinds = [type(module) for module in (shared, tied, inner["c"], model[2])]
    assert kinds == [fastgru.torch.GRU, fastgru.torch.GRU, Subclass, torch.nn.LSTM]
    assert list(model.state_dict()) == state
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    actual = tied(shared(x)[0])[0]
    assert_close([actual], [expected])
    assert len(served) == 2
    assert seen == ["hook", "hook"]

    expected.sum().backward()
    wanted = shared.weight_hh_l0.grad.clone()
    model.zero_grad()
    actual.sum().backward()
    assert_close([shared.weight_hh_l0.grad], [wanted], 1e-4)


def test_a_gru_itself_can_be_accelerated_and_again():
    gru = torch.nn.GRU(2, 3)
    assert fastgru.torch.accelerate(fastgru.torch.accelerate(gru)) is gru
    assert type(gru) is fastgru.torch.GRU


def test_only_modules_can_be_accelerated():
    with pytest.raises(TypeError, match=re.escape("module: expected a torch.nn.Module, got dict")):
        fastgru.torch.accelerate({})


# --- Calls that PyTorch's kernels run -----------------------------------------------------------------------------


def under_autocast(gru, x):
    with torch.autocast("cpu"):
        return gru(x)[0]


def of_function_transform(gru, x):
    weights = {name: p.detach() for name, p in gru.named_parameters()}
    gradients = torch.func.grad(lambda w: torch.func.functional_call(gru, w, (x,))[0].square().sum())(weights)
    return torch.cat([g.flatten() for g in gradients.values()])


def of_forward_mode(gru, x):
    from torch.autograd import forward_ad

    with forward_ad.dual_level():
        return forward_ad.unpack_dual(gru(forward_ad.make_dual(x, torch.ones_like(x)))[0]).tangent


def under_a_dispatch_mode(gru, x):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        gru(x)
    assert counter.get_total_flops() > 0
    return torch.tensor(float(counter.get_total_flops()))


FALLBACKS = {
    "autocast": under_autocast,
    "bfloat16": lambda gru, x: gru.bfloat16()(x.bfloat16())[0],
    "half": lambda gru, x: gru.half()(x.half())[0],
    "torch.func.grad": of_function_transform,
    "torch.func.jvp": lambda gru, x: torch.func.jvp(lambda x: gru(x)[0], (x,), (x,))[1],
    "forward mode": of_forward_mode,
    "dispatch mode": under_a_dispatch_mode,
    "torch.jit.script": lambda gru, x: torch.jit.script(Model(gru))(x),
    "torch.jit.trace": lambda gru, x: torch.jit.trace(Model(gru), (x,), check_trace=False)(x),
    "torch.export": lambda gru, x: torch.export.export(Model(gru), (x,)).module()(x),
    "torch.export, strict": lambda gru, x: torch.export.export(Model(gru), (x,), strict=True).module()(x),
    "empty batch": lambda gru, x: gru(x[:0])[0],
}


@scripting_is_old
# PyTorch's own GRU causes the same warnings: its export lists its weights, its trace compares sizes.
@pytest.mark.filterwarnings("ignore:The tensor attributes self.gru._flat_weights:UserWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
@pytest.mark.parametrize("way", FALLBACKS)
def test_unsupported_calls_use_pytorchs_kernels(pair, x, way, served):
    expected, actual = (FALLBACKS[way](gru, x) for gru in pair)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)
    assert not served


def test_meta_tensors_have_shapes_only(served):
    gru = fastgru.torch.GRU(5, 7, device="meta")
    y, state = gru(torch.randn(4, 6, 5, device="meta"))
    assert (y.device.type, y.shape, state.shape) == ("meta", (4, 6, 7), (1, 6, 7))
    assert not served


def test_tensor_subclasses_use_pytorchs_kernels(pair, x, served):
    class Subclass(torch.Tensor):
        pass

    theirs, ours = pair
    with torch.no_grad():
        y = ours(x.as_subclass(Subclass))[0]
    assert type(y) is Subclass
    assert torch.equal(y.as_subclass(torch.Tensor), theirs(x)[0])
    assert not served


def test_vmap_is_refused_by_pytorch_itself(pair, x):
    for gru in pair:
        with pytest.raises(RuntimeError, match="Batching rule not implemented for aten::gru"):
            torch.vmap(lambda x, gru=gru: gru(x)[0])(torch.stack([x, x]))


def test_functional_call_runs_the_kernels(pair, x, served):
    theirs, ours = pair
    weights = {name: 2 * p.detach() for name, p in theirs.named_parameters()}
    results = [torch.func.functional_call(gru, weights, (x,)) for gru in (ours, theirs)]
    assert_close(*results)
    assert len(served) == 4
    assert_close(ours(x), theirs(x))


def test_torch_fx_traces_one_node(pair, x, served):
    model = Model(pair[1])
    traced = torch.fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["gru"]
    assert torch.equal(traced(x), model(x))
    assert len(served) == 8


# PyTorch's compiler hides this warning of its own while it inspects tensors, but not if warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_models_run_the_kernels_between_their_parts(pair, x, served):
    # torch.compile skips every torch.nn.GRU; a compiler that traced the kernels' calls would warn about them.
    @torch.compile(backend="eager")
    def step(model, x):
        y = model(x)
        y.square().sum().backward()
        return y

    results = []
    for gru in pair:
        model = Model(gru)
        for _ in range(3):
            model.zero_grad()
            y = step(model, x)
        results.append([y, *(p.grad for p in model.parameters())])
    assert_close(*results, 1e-4)
    assert len(served) == 3 * 4
    assert_close([torch.compile(pair[1], backend="eager")(x)[0]], [pair[0](x)[0]])
    assert len(served) == 4 * 4


def test_a_default_device_does_not_move_results(pair, x, served):
    with torch.device("meta"):
        assert pair[1](x)[0].device.type == "cpu"
    assert len(served) == 4


# --- Import and packaging -----------------------------------------------------------------------------------------


def test_fastgru_does_not_import_pytorch_nor_this_its_compiler():
    program = """
import sys, fastgru
assert "torch" not in sys.modules
import torch, fastgru.torch
fastgru.torch.GRU(2, 3)(torch.ones(2, 2, 2))[0].sum().backward()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_examples_in_the_documentation_run():
    text = (Path(__file__).parents[1] / "docs" / "torch.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert programs
    for program in programs:
        exec(compile(program, "docs/torch.md", "exec"), {})
