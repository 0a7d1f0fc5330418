"""A batch with a loss, gradient or update that is not finite changes nothing, and the error names the cause."""

from __future__ import annotations

import re

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, callbacks, functional, layers, load_model, losses, optimizers, schedules
from fastgru._training import loop
from fastgru.formats import native
from models import classifier, regressor, samples

BAD = [np.inf, -np.inf, np.nan]


def make_model(optimizer=None, dtype="float32", **options):
    """A model whose first layer maps infinity to a finite number, so that only the gradient is not finite."""
    drop = [layers.Dropout(0.2)]
    return classifier(between=drop, metrics=["accuracy", "f1_score"], optimizer=optimizer, dtype=dtype, **options)


def state_of(model):
    """Return everything that training changes."""
    step, moments = model.optimizer.get_state()
    return {
        "weights": model.parameters.tobytes(),
        "step": step,
        "moments": {name: array.tobytes() for name, array in moments.items()},
        "states": {name: array.tobytes() for name, array in model.get_states().items()},
        "generator": model._network.generator.bit_generator.state,
        "metrics": [metric.get_state() for metric in model.metrics],
    }


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "options",
    [{}, {"stateful": True}, {"dropout": 0.3, "recurrent_dropout": 0.2}, {"recurrent_activation": "hard_sigmoid"}],
)
def test_a_nonfinite_batch_changes_nothing(options, bad, first):
    x, y = samples()
    model = make_model(**options)
    if not first:
        model.train_on_batch(x, y)
    before = state_of(model)
    worse = x.copy()
    worse[7, 2, 1] = bad
    with pytest.raises(FloatingPointError, match=rf"x has {bad} at index \(7, 2, 1\) of the batch; the weights are"):
        model.train_on_batch(worse, y)
    after = state_of(model)
    before.pop("metrics")
    after.pop("metrics")  # reset by the call, as by each
    assert after == before


def test_infinity_is_detected_in_the_gradient():
    """Premise of these tests: the loss of this batch is finite."""
    x, y = samples()
    x[7, 2, 1] = np.inf
    assert np.isfinite(make_model().evaluate(x, y)[0])


@pytest.mark.parametrize("at", [3, 40, 47])  # in the first batch, in the last one
def test_fit_names_epoch_batch_and_sample(at):
    x, y = samples()
    x[at, 2, 1] = np.inf
    model, until_then = make_model(), make_model()
    batch = at // 16
    message = (
        f"training stopped in epoch 1, batch {batch + 1}: the gradient is not finite because x has inf at index "
        f"({at}, 2, 1), in sample {at - 16 * batch} of the batch; the weights are those before this batch; "
        f"leave out such samples, or replace what is not finite in x"
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}$"):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    if batch:
        until_then.fit(x[: 16 * batch], y[: 16 * batch], batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.parameters, until_then.parameters)
    assert model.optimizer.step == batch


def test_a_shuffled_sample_is_named_by_its_index_in_x():
    x, y = samples()
    x[[17, 30], 2, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"x has inf at index \((17|30), 2, 1\), in sample \d+ of the batch;"):
        make_model().fit(x, y, batch_size=1, verbose=0)
    with pytest.raises(FloatingPointError, match=r"x has inf at index .*, and more in 1 other samples;"):
        make_model().fit(x, y, batch_size=48, verbose=0)
    held = np.delete(np.arange(48), [17, 30])[::2]
    with pytest.raises(FloatingPointError, match=r"x has inf at index \((17|30), 2, 1\), in sample"):
        make_model().fit(x, y, batch_size=8, verbose=0, validation_split=held)


def test_a_stream_names_the_index_in_its_batch():
    x, y = samples()
    x[20, 2, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch 2: .* x has inf at index \(4, 2, 1\) of the batch"):
        make_model().fit([(x[:16], y[:16]), (x[16:], y[16:])], verbose=0)


def test_checkpoints_are_unchanged_after_a_nonfinite_batch(tmp_path):
    x, y = samples()
    path = tmp_path / "a.safetensors"
    model = make_model()
    model.fit(x, y, verbose=0, shuffle=False, callbacks=[callbacks.ModelCheckpoint(path)])
    before = path.read_bytes()
    x[47, 2, 1] = np.inf  # in the last batch
    with pytest.raises(FloatingPointError, match="epoch 1, batch 2"):
        model.fit(x, y, verbose=0, shuffle=False, callbacks=[callbacks.ModelCheckpoint(path)])
    assert path.read_bytes() == before
    assert np.isfinite(load_model(path).parameters).all()


def test_no_checkpoint_is_written_for_nonfinite_weights(tmp_path):
    path = tmp_path / "a.safetensors"

    class Break(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[0].parameters["kernel"][0, 0] = np.nan

    model = make_model()
    with pytest.raises(
        FloatingPointError, match=r"a.safetensors: expected finite weights .* got NaN or infinity in gru/kernel;"
    ):
        model.fit(*samples(), epochs=3, verbose=0, callbacks=[Break(), callbacks.ModelCheckpoint(path)])
    assert load_model(path).optimizer.step == 2  # the checkpoint of the epoch before


def test_metrics_and_history_exclude_the_bad_batch():
    x, y = samples()
    x[40, 2, 1] = np.inf
    model, expected = make_model(), make_model()
    told = [callbacks.TerminateOnNaN()]
    history = model.fit(x, y, epochs=5, verbose=0, shuffle=False, callbacks=told).history
    assert history == expected.fit(x[:32], y[:32], verbose=0, shuffle=False).history
    assert model._network.generator.bit_generator.state == expected._network.generator.bit_generator.state


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}])
def test_pieces_of_a_large_batch(monkeypatch, options):
    monkeypatch.setattr(loop, "LEAST_ROWS", 5)
    monkeypatch.setattr(loop, "CACHED_TAPE", 4000)
    x, y = samples()
    model = make_model(**options)
    model.train_on_batch(x, y)
    assert len(loop.pieces(model._network, x)) > 2
    before = state_of(model)
    x[41, 2, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite because x has inf at index \(41, 2, 1\)"):
        model.train_on_batch(x, y)
    assert state_of(model)["generator"] == before["generator"]
    assert state_of(model)["weights"] == before["weights"]


def test_padding_may_be_nonfinite_and_is_not_named():
    x, y = samples()
    lengths = np.full(48, 3)
    x[:, 3:] = np.nan
    model = make_model()
    model.fit(x, y, lengths=lengths, verbose=0)
    assert np.isfinite(model.parameters).all()
    x[9, 1, 0] = np.inf
    with pytest.raises(FloatingPointError, match=r"x has inf at index \(9, 1, 0\), in sample 9 of the batch; the"):
        model.fit(x, y, lengths=lengths, batch_size=48, shuffle=False, verbose=0)


def test_targets_and_weights_are_named():
    x, y = samples()
    y = y.astype(np.float64)
    y[5] = np.inf
    with pytest.raises(
        FloatingPointError, match=r"the loss of sample 5 of the batch is inf because y has inf at index"
    ):
        regressor().train_on_batch(x, y)
    y[5] = 1e300  # overflows float32
    with (
        pytest.warns(RuntimeWarning, match=r"y: expected numbers in the range of float32, got 1e\+300"),
        pytest.raises(FloatingPointError, match=r"y has 1e\+300 at index \(5, 0\) of the batch, which overflows"),
    ):
        regressor().train_on_batch(x, y)
    weights = np.ones(48)
    weights[6] = 1e300  # the weighted loss is finite in double, its gradient is not in float32
    message = r"gradient is not finite because sample_weight has 1e\+300 at index 6 of the batch"
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match=message):
        regressor().train_on_batch(x, np.zeros(48), sample_weight=weights)


def test_no_sample_is_named_if_none_is_the_cause():
    class Steep(losses.MeanSquaredError):
        def compute(self, scores, targets, **options):
            result = super().compute(scores, targets, **options)
            return result._replace(d_scores=result.d_scores * np.float32(3e38) * 10)

    model = regressor()
    model.compile("adam", Steep())
    x, y = samples()
    with (
        np.errstate(over="ignore"),
        pytest.raises(
            FloatingPointError, match=r"^the gradient is not finite; the weights are .*; lower the learning"
        ) as e,
    ):
        model.train_on_batch(x, y)
    assert "sample" not in str(e.value)
    assert str(e.value).endswith("scale x and y to numbers near 1, or correct Steep if it returned that")


def test_nonfinite_weights_and_states_are_named():
    x, y = samples()
    model = make_model()
    model.layers[0].parameters["recurrent_kernel"][1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="because the weights gru/recurrent_kernel were not finite before"):
        model.fit(x, y, verbose=0)
    model = make_model(stateful=True)
    model.predict(np.where(np.arange(48)[:, None, None] == 3, np.float32(np.nan), x), batch_size=48)
    assert np.isnan(model.get_states()["gru/state"]).any(axis=1).tolist() == [row == 3 for row in range(48)]
    with pytest.raises(FloatingPointError, match=r"because the carried states gru/state were .*; call reset_states"):
        model.fit(x, y, batch_size=48, verbose=0)
    model.reset_states()
    model.fit(x, y, batch_size=48, verbose=0)


def test_a_penalty_that_overflows():
    model = regressor(kernel_regularizer=fastgru.regularizers.L2(1.0))
    model.layers[0].parameters["kernel"][...] = 1e30
    before = model.parameters.copy()
    x, y = samples()
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="the regularizers' penalty is inf"):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, before)


# --- The update -----------------------------------------------------------------------------------------------------

UPDATES = {
    "adam": lambda p, g, s, **o: functional.adam_update(p, g, s[0], s[1], step=2, **o),
    "adam tfjs": lambda p, g, s, **o: functional.adam_update(p, g, s[0], s[1], step=2, form="tfjs", **o),
    "adam pytorch": lambda p, g, s, **o: functional.adam_update(p, g, s[0], s[1], step=2, form="pytorch", **o),
    "adamw": lambda p, g, s, **o: functional.adam_update(p, g, s[0], s[1], step=2, weight_decay=0.1, **o),
    "sgd": lambda p, g, s, **o: functional.sgd_update(p, g, **o),
    "momentum": lambda p, g, s, **o: functional.sgd_update(p, g, s[0], momentum=0.9, **o),
    "rmsprop": lambda p, g, s, **o: functional.rmsprop_update(p, g, s[0], **o),
    "centered": lambda p, g, s, **o: functional.rmsprop_update(
        p, g, s[0], s[1], s[2], momentum=0.9, centered=True, **o
    ),
}


def buffers(count, dtype):
    rng = np.random.default_rng(1)
    p, g = (rng.normal(size=count).astype(dtype) for _ in range(2))
    return p, g, [np.square(g), np.square(g) + dtype(1), g.copy()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", UPDATES)
def test_no_update_is_half_applied(name, dtype):
    for threads in (1, 4):
        fastgru.set_num_threads(threads)
        for count, at in [(1, 0), (3, 2), (17, 16), (40_000, 0), (40_000, 39_999), (40_000, 20_001)]:
            for bad in BAD:
                for prepare in ({}, {"scale": 0.5}, {"clip": 0.1}):
                    p, g, states = buffers(count, dtype)
                    g[at] = bad
                    before = [array.copy() for array in (p, *states)]
                    message = f"gradient: .* got {bad} at index {at}; parameters and states are unchanged"
                    with pytest.raises(FloatingPointError, match=message):
                        UPDATES[name](p, g, states, **prepare)
                    for array, old in zip((p, *states), before, strict=True):
                        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(
    ("value", "options"),
    [(3e38, {}), (2e19, {"learning_rate": 1e30}), (1.0, {"learning_rate": 1e300}), (1.0, {"learning_rate": 3e38})],
)
def test_an_update_that_would_overflow_is_not_made(name, value, options):
    p, g, states = buffers(1000, np.float32)
    g[900] = value
    before = [array.copy() for array in (p, *states)]
    refused = False
    try:
        UPDATES[name](p, g, states, **options)
    except FloatingPointError:
        refused = True
    if refused:
        for array, old in zip((p, *states), before, strict=True):
            np.testing.assert_array_equal(array, old)
    else:
        assert all(np.isfinite(array).all() for array in (p, *states))


def test_which_updates_overflow():
    p, g, states = buffers(100, np.float32)
    with pytest.raises(FloatingPointError):  # the second moment
        functional.adam_update(p, np.full_like(g, 1e20), states[0], states[1], step=1)
    with pytest.raises(FloatingPointError):
        functional.sgd_update(p, g, learning_rate=1e300)
    with pytest.raises(FloatingPointError):  # 0 / 0
        functional.adam_update(p, g * 0, states[0] * 0, states[1] * 0, step=1, epsilon=0)
    functional.sgd_update(p, np.full_like(g, 1e20), learning_rate=1e-20)  # the square is infinite
    assert np.isfinite(p).all()


REPEATED = {
    "adam": lambda p, g, s, step: functional.adam_update(p, g, *s[:2], step=step, weight_decay=1e6),
    "adam, negative rate": lambda p, g, s, step: functional.adam_update(
        p, g, *s[:2], step=step, learning_rate=-1e-3, weight_decay=1e6
    ),
    "adam, tiny epsilon": lambda p, g, s, step: functional.adam_update(
        p, g if step == 1 else g * 0, *s[:2], step=step, beta_2=0.0, epsilon=1e-19, learning_rate=0.1
    ),
    "sgd": lambda p, g, s, step: functional.sgd_update(p, g, learning_rate=1e12),
    "sgd, scale": lambda p, g, s, step: functional.sgd_update(p, g, learning_rate=1.0, scale=1e18),
    "sgd, momentum of 1": lambda p, g, s, step: functional.sgd_update(p, g, s[0], learning_rate=1e3, momentum=1.0),
    "sgd, momentum above 1": lambda p, g, s, step: functional.sgd_update(p, g, s[0], learning_rate=1e-3, momentum=3.0),
    "rmsprop, momentum above 1": lambda p, g, s, step: functional.rmsprop_update(p, g, *s[:2], momentum=3.0),
    "rmsprop": lambda p, g, s, step: functional.rmsprop_update(p, g, *s[:1], learning_rate=1e12, epsilon=1.0),
}


@pytest.mark.parametrize("name", REPEATED)
def test_no_number_of_updates_makes_parameters_infinite(name):
    """Start at the largest floats, with the largest gradient whose square is finite and too few to overflow the sum."""
    for start in (1.0, np.finfo(np.float32).max):
        p = np.full(3, -start, np.float32)
        g = np.full(3, 1.8e19 if name != "adam, negative rate" else -1.8e19, np.float32)
        states = [np.zeros(3, np.float32) for _ in range(3)]
        for step in range(1, 301):
            before = [array.copy() for array in (p, *states)]
            try:
                REPEATED[name](p, g, states, step)
            except FloatingPointError:
                for array, old in zip((p, *states), before, strict=True):
                    np.testing.assert_array_equal(array, old)
                break
            assert all(np.isfinite(array).all() for array in (p, *states)), step


def test_weight_decay_that_compounds_is_refused():
    fastgru.set_seed(3)
    model = Sequential([layers.GRU(4, input_shape=(5, 3)), layers.Dense(1)])
    model.compile(optimizers.AdamW(1e-3, weight_decay=1e6), "mae")
    x, y = samples()
    with pytest.raises(FloatingPointError, match=r"the update would make weights or moments overflow in float32"):
        model.fit(x, y[:, None].astype(np.float32), batch_size=48, epochs=30, verbose=0)
    assert np.isfinite(model.parameters).all()


@pytest.mark.parametrize(
    "optimizer", [optimizers.SGD(1e300), optimizers.SGD(1e300, momentum=0.9), optimizers.Adam(1e300)]
)
def test_a_rate_that_overflows_changes_nothing(optimizer):
    model = regressor(optimizer=optimizer)
    before = state_of(model)
    with pytest.raises(
        FloatingPointError, match="epoch 1, batch 1: the update would make weights or moments overflow in f"
    ):
        model.fit(*samples(), shuffle=False, verbose=0)
    assert state_of(model) == before
    assert optimizer.states == {}


class Wild(schedules.Schedule):
    def __call__(self, step):
        return 0.01 if step < 2 else self.value


@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_a_schedule_that_gives_no_number(rate):
    model = make_model(optimizers.Adam(Wild(value=rate)), stateful=True)
    x, y = samples()
    for _ in range(2):
        model.train_on_batch(x, y)
    before = state_of(model)
    with pytest.raises(ValueError, match="learning_rate: expected a finite number"):
        model.train_on_batch(x, y)
    before.pop("metrics")
    after = state_of(model)
    after.pop("metrics")
    assert after == before


def test_a_custom_optimizer_receives_finite_gradients_only():
    class Own(optimizers.Optimizer):
        arguments = ()

        def _update(self, parameters, gradient, **prepare):
            parameters -= np.float32(0.01) * gradient

    x, y = samples()
    model = make_model(Own(0.01, None, None))
    model.train_on_batch(x, y)
    before = model.parameters.copy()
    x[7, 2, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"gradient is not finite because x has inf at index \(7, 2, 1\)"):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, before)
    assert model.optimizer.step == 1


@pytest.mark.parametrize("clip", [{"global_clipnorm": 1.0}, {"clipvalue": 0.5}])
def test_clipping_does_not_hide_an_infinity(clip):
    x, y = samples()
    model = make_model(optimizers.SGD(0.1, **clip))
    before = model.parameters.copy()
    x[7, 2, 1] = np.inf
    with pytest.raises(FloatingPointError):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, before)


def test_the_norm_of_large_numbers():
    assert functional.norm(np.full(4, 1e200)) == pytest.approx(2e200)
    assert np.isnan(functional.norm(np.array([1.0, np.nan])))
    assert functional.norm(np.array([1.0, np.inf])) == np.inf
    p = np.zeros(4)
    optimizer = optimizers.SGD(1.0, global_clipnorm=2.0)
    optimizer.update(p, np.full(4, 1e200))
    np.testing.assert_allclose(p, -1.0)


# --- Validation and inference ---------------------------------------------------------------------------------------


def test_validation_that_is_not_finite_is_reported_and_changes_no_training(tmp_path):
    x, y = samples()
    worse = x.copy()
    worse[3, 2, 1] = np.nan
    path = tmp_path / "best.safetensors"
    stop = callbacks.EarlyStopping(patience=9, restore_best_weights=True)
    best = callbacks.ModelCheckpoint(path, save_best_only=True)
    model, plain = make_model(), make_model()
    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(worse, y), callbacks=[stop, best]).history
    assert np.isnan(history["val_loss"]).all()
    assert not path.exists()  # no epoch had a finite loss
    assert history["loss"] == plain.fit(x, y, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(model.parameters).all()


@pytest.mark.parametrize("bad", BAD)
def test_in_inference_a_nonfinite_value_affects_its_own_sample_only(bad):
    x, _ = samples()
    model = make_model()
    expected = model.predict(x)
    x[7, 2, 1] = bad
    found = model.predict(x)
    np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(expected, 7, axis=0))


def test_resumed_training_raises_for_a_nonfinite_state(tmp_path):
    """Earlier versions could write checkpoints with weights that are not finite: the message names the weights."""
    x, y = samples()
    path = tmp_path / "a.safetensors"
    make_model().fit(x, y, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])
    config, tensors = native.load(path)
    tensors["layers/gru/kernel"] = np.full_like(tensors["layers/gru/kernel"], np.nan)
    native.save(path, config, tensors)
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch 1: .* the weights gru/kernel were not finite before"):
        make_model().fit(x, y, epochs=3, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)], resume_from=path)
