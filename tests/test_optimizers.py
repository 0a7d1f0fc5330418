"""Updates of parameters: the kernels against the equations in `reference`, and what optimizers make of them.

Keras' and PyTorch's own optimizers judge both in test_against_keras.py and test_layers_against_torch.py.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from fastgru import Sequential, functional, layers, optimizers, reference, schedules

#: Tolerance for ten updates with a few roundings each, on moments of both signs.
RELATIVE = {np.float32: 5e-6, np.float64: 1e-14}

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
#: Numbers near multiples of every register width, and more than the block of one thread.
counts = pytest.mark.parametrize("count", [0, 1, 7, 64, 1001, 70_000])

#: name -> update, its equations, states, options. Large epsilons reveal an epsilon in a wrong place.
UPDATES = {
    **{
        f"adam, {form}, decay {decay}, amsgrad {amsgrad}": (
            functional.adam_update, reference.adam, 3,
            {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01, "weight_decay": decay,
             "amsgrad": amsgrad, "form": form},
        )
        for form in ("keras", "tfjs", "pytorch")
        for decay in (0.0, 0.3)
        for amsgrad in (False, True)
        if not (amsgrad and form == "tfjs")
    },
    **{
        f"sgd, {form}, momentum {momentum}, nesterov {nesterov}, decay {decay}": (
            functional.sgd_update, reference.sgd, 1,
            {"learning_rate": 0.01, "momentum": momentum, "nesterov": nesterov, "weight_decay": decay, "form": form},
        )
        for form in ("keras", "pytorch")
        for decay in (0.0, 0.3)
        for momentum in (0.0, 0.9)
        for nesterov in (False, True)
    },
    **{
        f"rmsprop, {form}, momentum {momentum}, centered {centered}, decay {decay}": (
            functional.rmsprop_update, reference.rmsprop, 3,
            {"learning_rate": 0.01, "rho": 0.8, "epsilon": 0.01, "momentum": momentum, "centered": centered,
             "weight_decay": decay, "form": form},
        )
        for form in ("keras", "pytorch")
        for decay in (0.0, 0.3)
        for momentum in (0.0, 0.9)
        for centered in (False, True)
    },
}  # fmt: skip


def steps_of(update, number):
    """Adam's updates are numbered."""
    return {"step": number} if update is functional.adam_update else {}


@dtypes
@counts
@pytest.mark.parametrize("name", UPDATES)
def test_matches_the_reference(name, count, dtype):
    update, equations, states, options = UPDATES[name]
    rng = np.random.default_rng(count)
    actual = [rng.normal(size=count).astype(dtype), *(np.zeros(count, dtype) for _ in range(states))]
    wanted = [array.astype(np.float64) for array in actual]
    for step in range(1, 11):
        gradient = rng.normal(size=count).astype(dtype)
        update(actual[0], gradient, *actual[1:], **options, **steps_of(update, step))
        wanted = equations(wanted[0], gradient, *wanted[1:], **options, **steps_of(update, step))
    kept = len(actual) if "momentum 0.0" not in name else 1  # a momentum of 0 keeps none
    for one, other in list(zip(actual, wanted, strict=True))[:kept]:
        np.testing.assert_allclose(one, other, rtol=RELATIVE[dtype], atol=RELATIVE[dtype])


@dtypes
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_gradient_is_scaled_and_then_clipped(scale, clip, name, dtype):
    update, _, states, options = UPDATES[name]
    rng = np.random.default_rng(1)
    start, gradient = rng.normal(size=37).astype(dtype), rng.normal(size=37).astype(dtype)
    prepared = gradient * dtype(scale)
    if clip is not None:
        prepared = np.clip(prepared, -dtype(clip), dtype(clip))
    results = []
    for given, prepare in ((gradient, {"scale": scale, "clip": clip}), (prepared, {})):
        arrays = [start.copy(), *(np.zeros(37, dtype) for _ in range(states))]
        update(arrays[0], given.copy(), *arrays[1:], **options, **prepare, **steps_of(update, 1))
        results.append(arrays)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@dtypes
@pytest.mark.parametrize("name", UPDATES)
def test_elements_do_not_depend_on_their_position(name, dtype):
    update, _, states, options = UPDATES[name]
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=37).astype(dtype), rng.normal(size=37).astype(dtype)
    whole, single = p.copy(), p[36:].copy()
    update(whole, g, *(np.zeros(37, dtype) for _ in range(states)), **options, **steps_of(update, 3))
    update(single, g[36:].copy(), *(np.zeros(1, dtype) for _ in range(states)), **options, **steps_of(update, 3))
    assert whole[36] == single[0]


def test_keras_epsilon_differs_from_that_of_the_paper():
    results = {}
    for form in ("keras", "tfjs", "pytorch"):
        p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
        functional.adam_update(p, np.full(1, 1e-3), m, v, step=1, epsilon=1e-3, form=form)
        results[form] = p[0]
    assert results["tfjs"] == pytest.approx(results["pytorch"], rel=1e-15)
    assert abs(results["keras"] - results["tfjs"]) > 1e-4


@dtypes
@counts
def test_the_global_norm(count, dtype):
    x = np.random.default_rng(0).normal(size=count).astype(dtype)
    assert functional.norm(x) == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-13)


def test_the_norm_of_large_numbers_does_not_overflow():
    assert functional.norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)


# --- Optimizers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.Adam(0.1),
        optimizers.AdamW(0.1, weight_decay=0.1),
        optimizers.Adam(0.1, amsgrad=True, clipnorm=0.5),
        optimizers.SGD(0.1, momentum=0.5, weight_decay=0.1),
        optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    ],
    ids=repr,
)
def test_a_configuration_and_a_state_make_the_same_optimizer(optimizer):
    rng = np.random.default_rng(0)
    p = rng.normal(size=9)
    optimizer.update(p, rng.normal(size=9))
    again = optimizers.from_config(type(optimizer).__name__, optimizer.get_config())
    again.set_state(*optimizer.get_state())
    q = p.copy()
    gradient = rng.normal(size=9)
    optimizer.update(p, gradient)
    again.update(q, gradient)
    np.testing.assert_array_equal(p, q)
    assert again.get_config() == optimizer.get_config()


def test_a_gradient_that_is_too_long_is_shortened_and_others_are_not():
    long, short = np.array([3.0, 4.0]), np.array([0.3, 0.4])
    for gradient, expected in ((long, long / 5), (short, short)):
        p = np.zeros(2)
        optimizers.SGD(1.0, global_clipnorm=1.0).update(p, gradient)
        np.testing.assert_allclose(p, -expected, rtol=1e-15)


def test_only_one_clipping_option_is_allowed():
    with pytest.raises(ValueError, match="global_clipnorm: expected None because clipvalue is given, got both"):
        optimizers.Adam(global_clipnorm=1, clipvalue=1)


def test_clipnorm_limits_the_gradient_of_each_weight():
    def views(flat):
        return {"long": flat[:2].reshape(1, 2), "short": flat[2:]}

    p = np.zeros(4)
    optimizers.SGD(1.0, clipnorm=1.0).update(p, np.array([3.0, 4.0, 0.3, 0.4]), views=views)
    np.testing.assert_allclose(p, [-0.6, -0.8, -0.3, -0.4], rtol=1e-15)


def test_excluded_weights_do_not_decay_and_a_failed_update_changes_nothing():
    def views(flat):
        return {"gru/kernel": flat[:2], "gru/bias": flat[2:]}

    for dtype in (np.float32, np.float64):
        start = np.array([0.7, -1.1, 0.3, 5.0], dtype)
        plain, excluding = optimizers.SGD(0.1, weight_decay=0.5), optimizers.SGD(0.1, weight_decay=0.5)
        excluding.exclude_from_weight_decay(var_names=["bias"])
        gradient = np.array([0.1, 0.2, 0.3, 0.4], dtype)
        p, q, free = start.copy(), start.copy(), start.copy()
        plain.update(p, gradient.copy(), views=views)
        excluding.update(q, gradient.copy(), views=views)
        optimizers.SGD(0.1).update(free, gradient.copy(), views=views)
        np.testing.assert_array_equal(q, [*p[:2], *free[2:]])
        before = q.copy()
        with pytest.raises(FloatingPointError):
            excluding.update(q, np.full(4, np.nan, dtype), views=views)
        np.testing.assert_array_equal(q, before)
        again = optimizers.get({"class_name": "SGD", "config": excluding.get_config()})
        assert again.get_config() == excluding.get_config() != plain.get_config()
        with pytest.raises(ValueError, match="expected a call before the first update"):
            excluding.exclude_from_weight_decay(var_names=["kernel"])


@pytest.mark.parametrize(
    ("expression", "excluded"),
    [("^kernel$", {"gru/kernel"}), ("kernel$", {"gru/kernel", "gru/recurrent_kernel"}), ("gru/b", {"gru/bias"})],
)
def test_names_that_do_not_decay_are_regular_expressions(expression, excluded):
    names = ["gru/kernel", "gru/recurrent_kernel", "gru/bias"]
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=[expression])
    weights = np.ones(3, np.float32)
    optimizer.update(
        weights, np.zeros(3, np.float32), views=lambda flat: {name: flat[i : i + 1] for i, name in enumerate(names)}
    )
    assert {name for name, weight in zip(names, weights, strict=True) if weight == 1} == excluded


def test_expressions_that_are_invalid_change_nothing():
    optimizer = optimizers.Adam(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match=r"var_names: expected regular expressions, got '\*'.*re\.escape"):
        optimizer.exclude_from_weight_decay(var_names=["kernel", "*"])
    assert optimizer.get_config()["exclude_from_weight_decay"] == ["bias"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_ema": True}, "use_ema: expected False because fastgru does not support it, got True; average"),
        ({"loss_scale_factor": 128.0}, "loss_scale_factor: expected None .* leave it out"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps: expected None .* larger batch_size"),
        ({"weight_decay": -1}, "weight_decay: expected a finite number at least 0"),
        ({"clipnorm": 0}, "clipnorm: expected a finite number above 0"),
    ],
)
@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS.values())
def test_unsupported_options_raise_and_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_identifiers_of_optimizers():
    assert isinstance(optimizers.get("RMSprop"), optimizers.RMSprop)
    assert isinstance(optimizers.get("adamw"), optimizers.AdamW)
    made = optimizers.get({"class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.25}})
    assert made.get_config() == optimizers.SGD(0.5, 0.25).get_config()
    with pytest.raises(ValueError, match=r"got 'Nadam'; use optimizers.Adam or optimizers.AdamW"):
        optimizers.get("Nadam")
    with pytest.raises(AttributeError, match=r"no attribute 'Adagrad'; use optimizers.RMSprop"):
        _ = optimizers.Adagrad


def test_the_learning_rate_follows_its_schedule():
    schedule = schedules.ExponentialDecay(0.5, 1, 0.5)
    optimizer = optimizers.SGD(schedule)
    p = np.zeros(1)
    for expected in (0.5, 0.25, 0.125):
        before = p.copy()
        optimizer.update(p, np.ones(1))
        assert (before - p)[0] == expected


# --- Schedules ------------------------------------------------------------------------------------------------------


def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing():
    schedule = schedules.OneCycle(0.1, 100, pct_start=0.25)
    rates = [schedule(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == pytest.approx(0.1)
    assert rates[99] == pytest.approx(0.1 / 25 / 1e4)
    assert rates[100] == rates[99]
    peak = int(np.argmax(rates))
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:100]) < 0).all()


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Constant(0.1),
        schedules.CosineDecay(0.0, 10, alpha=0.1, warmup_target=0.5, warmup_steps=3),
        schedules.OneCycle(0.1, 20, 0.4, 10, 100),
        schedules.ExponentialDecay(0.1, 5, 0.5, staircase=True),
        schedules.InverseTimeDecay(0.1, 5, 0.5),
        schedules.PiecewiseConstantDecay([3, 9], [0.3, 0.2, 0.1]),
        schedules.PolynomialDecay(0.1, 5, power=2, cycle=True),
        schedules.CosineDecayRestarts(0.1, 5, m_mul=0.5),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_schedule_is_restored_from_its_configuration(schedule):
    again = schedules.get("learning_rate", schedule.get_config())
    assert [again(step) for step in range(25)] == [schedule(step) for step in range(25)]


def test_an_optimizer_belongs_to_one_model_at_a_time():
    one, other = (Sequential([layers.Dense(2, input_shape=(3,))]) for _ in range(2))
    optimizer = optimizers.Adam()
    one.compile(optimizer, "mse")
    one.compile(optimizer, "mae")  # the same again
    with pytest.raises(ValueError, match="optimizer: expected an optimizer of no other model"):
        other.compile(optimizer, "mse")
    assert other.optimizer is None
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        other.compile(copied, "mse")
    one.compile("sgd", "mse")
    other.compile(optimizer, "mse")  # which is free now
