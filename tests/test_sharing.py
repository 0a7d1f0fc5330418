"""A model in use: what callbacks may do with it, and what other threads may do at the same time."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pickle
import random
import signal
import threading

import fastgru
import numpy as np
import pytest
from concurrency import in_threads
from fastgru import Sequential, callbacks, layers, load_model, losses
from models import classifier, samples

pytestmark = pytest.mark.isa_independent


data = functools.partial(samples, count=24)
make_model = functools.partial(classifier, input_shape=(5, 3), optimizer="adam", metrics=["accuracy", "f1_score"])


OCCASIONS = tuple(inspect.signature(callbacks.LambdaCallback).parameters)[:-1]  # without **functions


def fit_with(model, occasion, action, **options):
    """Call fit, with an action in a callback at that time."""
    told = callbacks.LambdaCallback(**{occasion: lambda *_: action(model)})
    return model.fit(*data(), **{"epochs": 2, "batch_size": 8, "verbose": 0, "callbacks": [told], **options})


# --- In callbacks ---------------------------------------------------------------------------------------------------

REFUSED = {
    "fit": lambda model: model.fit(*data(1), verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(*data(1)),
    "compile": lambda model: model.compile("sgd"),
    "add": lambda model: model.add(layers.Dense(2, activation="softmax")),
}


@pytest.mark.parametrize("occasion", OCCASIONS)
@pytest.mark.parametrize("name", REFUSED)
def test_calls_that_change_the_training_raise_in_a_callback(name, occasion):
    model = make_model()
    parts = model.optimizer, model.loss, list(model.layers)
    with pytest.raises(
        RuntimeError, match=f"^{name}: expected a model that is not in use because {name} .* got one in"
    ):
        fit_with(model, occasion, REFUSED[name])
    assert (model.optimizer, model.loss, model.layers) == parts
    fit_with(model, occasion, lambda model: None)  # usable again
    REFUSED[name](model)


@pytest.mark.parametrize("name", REFUSED)
def test_calls_that_change_the_training_raise_in_streams_and_losses(name):
    model = make_model()

    def batches():
        REFUSED[name](model)
        yield data()

    class Own(losses.SparseCategoricalCrossentropy):
        def compute(self, *arguments, **options):
            REFUSED[name](model)
            return super().compute(*arguments, **options)

    message = f"^{name}: .* got one in use by"
    with pytest.raises(RuntimeError, match=f"{message} fit, from which {name} is called; call it after fit"):
        model.fit(batches(), verbose=0)
    with pytest.raises(RuntimeError, match=f"{message} evaluate"):
        model.evaluate(batches())
    model.compile("adam", Own())
    for use in (model.train_on_batch, model.evaluate):
        with pytest.raises(RuntimeError, match=f"{message} {use.__name__}"):
            use(*data())


def test_an_error_leaves_the_training_unchanged():
    """A callback that continues after the error trains the same model."""
    plain, tried = make_model(), make_model()

    def action(model):
        for attempt in REFUSED.values():
            with pytest.raises(RuntimeError, match="got one in use by fit"):
                attempt(model)

    expected = plain.fit(*data(), epochs=2, batch_size=8, verbose=0)
    assert fit_with(tried, "on_train_batch_end", action).history == expected.history
    np.testing.assert_array_equal(tried.parameters, plain.parameters)


def train_copy(model):
    model.reset_states()
    model.fit(*data(1), verbose=0)


ALLOWED = {
    "predict": lambda model: model.predict(data(1, count=7)[0]),
    "evaluate": lambda model: model.evaluate(*data(1, count=7)),
    "evaluate a stream": lambda model: model.evaluate([data(1, count=7), data(2, count=7)]),
    "get and set weights": lambda model: model.set_weights(model.get_weights()),
    "copy": lambda model: train_copy(copy.deepcopy(model)),
    "pickle": lambda model: train_copy(pickle.loads(pickle.dumps(model))),
}

MORE = {
    "plain": {},
    "stateful": {"stateful": True},
    "dropouts": {"dropout": 0.2, "recurrent_dropout": 0.2, "between": (layers.Dropout(0.3), layers.Dense(3, "tanh"))},
    "pooling": {"return_sequences": True, "between": (layers.GlobalMaxPooling1D(),)},
    "mean": {"return_sequences": True, "between": (layers.GlobalAveragePooling1D(),)},
    "flat": {"return_sequences": True, "between": (layers.Flatten(), layers.Dense(3, "relu"))},
    "both ways": {"return_sequences": True, "between": (layers.Bidirectional(layers.GRU(3), "mul"),)},
}


@pytest.mark.parametrize("options", MORE.values(), ids=MORE)
@pytest.mark.parametrize("name", ALLOWED)
def test_a_callback_may_use_the_model_and_changes_nothing(name, options):
    options = copy.deepcopy(options)
    plain, watched = make_model(**copy.deepcopy(options)), make_model(**options)
    expected = plain.fit(*data(), epochs=2, batch_size=8, verbose=0, validation_data=data(2, count=8))
    for_each = ("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end")
    told = callbacks.LambdaCallback(**dict.fromkeys(for_each, lambda *_: ALLOWED[name](watched)))
    found = watched.fit(*data(), epochs=2, batch_size=8, verbose=0, validation_data=data(2, count=8), callbacks=[told])
    assert found.history == expected.history
    np.testing.assert_array_equal(watched.parameters, plain.parameters)
    assert watched.get_states().keys() == plain.get_states().keys()
    for state, other in zip(watched.get_states().values(), plain.get_states().values(), strict=True):
        np.testing.assert_array_equal(state, other)


@pytest.mark.parametrize("options", MORE.values(), ids=MORE)
@pytest.mark.parametrize("name", ["predict", "evaluate"])
def test_a_loss_may_use_the_model_between_forward_and_backward(name, options):
    class Own(losses.SparseCategoricalCrossentropy):
        busy = False

        def compute(self, *arguments, **more):
            if not self.busy:
                self.busy = True
                ALLOWED[name](watched)
                self.busy = False
            return super().compute(*arguments, **more)

    plain, watched = make_model(**copy.deepcopy(options)), make_model(**copy.deepcopy(options))
    watched.compile("adam", loss=Own(), metrics=["accuracy", "f1_score"])
    expected = plain.fit(*data(), epochs=2, batch_size=8, verbose=0, validation_data=data(2, count=8))
    found = watched.fit(*data(), epochs=2, batch_size=8, verbose=0, validation_data=data(2, count=8))
    assert found.history == expected.history
    np.testing.assert_array_equal(watched.parameters, plain.parameters)


def sequence_model(*inner, tokens=False):
    """Return a model of 4 features per step with the tested layers in the middle."""
    first = (
        layers.Embedding(9, 4, mask_zero=True, input_shape=(5,))
        if tokens
        else layers.GRU(4, return_sequences=True, input_shape=(5, 4))
    )
    return lambda: [copy.deepcopy(first), *copy.deepcopy(inner), layers.Dense(3)]


POOL = layers.GlobalAveragePooling1D()
#: Every class of layers, with its different backward paths: name -> a function that creates a model.
WITH_EACH_LAYER = {
    "GRU": sequence_model(layers.GRU(3, dropout=0.2, recurrent_dropout=0.2)),
    "GRU of each step": sequence_model(layers.GRU(3, return_sequences=True, go_backwards=True)),
    "Bidirectional": sequence_model(layers.Bidirectional(layers.GRU(3))),
    "Bidirectional of each step": sequence_model(layers.Bidirectional(layers.GRU(3, return_sequences=True), "mul")),
    "Dense": sequence_model(layers.Dense(4, "tanh"), layers.GRU(3)),
    "Dense at the end": lambda: [layers.GRU(3, return_sequences=True, input_shape=(5, 4)), layers.Dense(3, "softmax")],
    "Embedding": sequence_model(layers.GRU(3), tokens=True),
    "Activation": sequence_model(layers.Activation("relu"), POOL),
    "Activation of a state": sequence_model(layers.GRU(4), layers.Activation("tanh")),
    "Activation at the end": lambda: [
        layers.GRU(3, return_sequences=True, input_shape=(5, 4)), layers.Dense(3), layers.Activation("softmax")
    ],
    "Masking": lambda: [layers.Masking(input_shape=(5, 4)), layers.GRU(3), layers.Dense(3)],
    "Dropout": sequence_model(layers.Dropout(0.3), POOL),
    "Rescaling": sequence_model(layers.Rescaling(0.5, 1), POOL),
    "Rescaling of bytes": lambda: [
        layers.Rescaling(0.5, uint8_only=True, input_shape=(5, 4)), layers.GRU(3), layers.Dense(3)
    ],
    "Flatten": sequence_model(layers.Flatten()),
    "GlobalAveragePooling1D": sequence_model(POOL),
    "GlobalMaxPooling1D": sequence_model(layers.GlobalMaxPooling1D()),
    "LastStep": sequence_model(layers.LastStep()),
    "LastStep of both ways": sequence_model(
        layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.LastStep()
    ),
    "Permute": sequence_model(layers.Permute((2, 1)), layers.GRU(3)),
    "RepeatVector": sequence_model(layers.GRU(3), layers.RepeatVector(4), layers.GRU(3)),
    "Reshape": sequence_model(layers.Reshape((10, 2)), layers.GRU(3)),
    "SpatialDropout1D": sequence_model(layers.SpatialDropout1D(0.3), POOL),
    "TimeDistributed": sequence_model(layers.TimeDistributed(layers.Reshape((2, 2))), layers.Flatten()),
    "TimeDistributed at the end": lambda: [
        layers.GRU(3, return_sequences=True, input_shape=(5, 4)), layers.TimeDistributed(layers.Dense(3, "softmax"))
    ],
}  # fmt: skip


def test_each_class_of_layers_is_tested():
    made = {type(layer).__name__ for make in WITH_EACH_LAYER.values() for layer in make()}
    assert made == layers.LAYERS.keys()


@pytest.mark.filterwarnings("ignore:.*lengths and masks end here:UserWarning")
@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("use", ["predict", "evaluate"])
@pytest.mark.parametrize("name", WITH_EACH_LAYER)
def test_a_pass_without_training_changes_no_gradient_of_one_with(name, use, with_lengths):
    """A user's loss may call the model between forward and backward, with other shapes and lengths."""
    make, rng = WITH_EACH_LAYER[name], np.random.default_rng(0)

    def batch(count):
        steps = np.arange(count) % 5 + 1 if with_lengths else None
        if isinstance(make()[0], layers.Embedding):
            x = rng.integers(1, 9, (count, 5))
        else:
            x = rng.normal(size=(count, 5, 4)).astype(np.float32)
        return x, rng.integers(0, 3, count), steps

    x, y, lengths = batch(6)
    others = [batch(count) for count in (2, 4, 9)]

    class Own(losses.SparseCategoricalCrossentropy):
        nested = 0

        def compute(self, *arguments, **more):
            if watched and not self.nested:
                self.nested += 1
                for other, classes, theirs in others:
                    if use == "predict":
                        watched[0].predict(other, lengths=theirs)
                    else:
                        watched[0].evaluate(other, labels_for(watched[0], classes), lengths=theirs)
                self.nested -= 1
            return super().compute(*arguments, **more)

    def labels_for(model, classes):
        return classes if len(model.output_shape) == 2 else np.repeat(classes[:, None], 5, axis=1)

    weights = []
    for is_watched in (False, True):
        watched = []
        fastgru.set_seed(1)
        model = Sequential(make())
        model.compile("sgd", Own(from_logits=model.layers[-1].head.activation == "linear"))
        if is_watched:
            watched.append(model)
        before = model.get_weights()
        for _ in range(2):
            model.train_on_batch(x, labels_for(model, y), lengths=lengths)
        weights.append(model.get_weights())
    assert any(np.any(one != other) for one, other in zip(before, weights[0], strict=True))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_evaluations_have_separate_metrics():
    model = make_model()
    expected = model.evaluate(*data(), batch_size=8)

    def batches():
        for begin in (0, 8, 16):
            yield tuple(array[begin : begin + 8] for array in data())
            model.evaluate(*data(1))

    assert model.evaluate(batches()) == expected


def test_states_remain_reset_by_a_callback():
    """The usual way to train a stateful model epoch by epoch."""
    reset, expected = make_model(stateful=True), make_model(stateful=True)
    fit_with(reset, "on_epoch_begin", lambda model: model.reset_states(), shuffle=False)
    for _ in range(2):
        expected.reset_states()
        expected.fit(*data(), batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_array_equal(reset.parameters, expected.parameters)


def test_training_continues_with_weights_that_a_callback_loads(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "a.weights.h5"
    make_model().save_weights(path)
    model = make_model()
    fit_with(model, "on_epoch_end", lambda model: model.load_weights(path))
    np.testing.assert_array_equal(model.parameters, make_model().parameters)


def test_a_callback_may_save_the_model(tmp_path):
    path = tmp_path / "a.safetensors"
    model = make_model(stateful=True)
    fit_with(model, "on_epoch_end", lambda model: model.save(path), shuffle=False)
    np.testing.assert_array_equal(load_model(path).parameters, model.parameters)


# --- In other threads -----------------------------------------------------------------------------------------------


class Held:
    """Yield a model that a thread uses within `use` until the block ends."""

    def __init__(self, model, use):
        self.model, self.use = model, use
        self.inside, self.leave, self.error = threading.Event(), threading.Event(), None

    def wait(self):
        self.inside.set()
        assert self.leave.wait(60)

    def batches(self):
        self.wait()
        yield data()

    def run(self):
        try:
            if self.use == "fit":
                self.model.fit(self.batches(), verbose=0)
            elif self.use == "evaluate":
                self.model.evaluate(self.batches())
            else:  # the last layer is asked, then it waits
                head = self.model.layers[-1]
                forward = head.forward

                def slow(*arguments, **options):
                    if threading.current_thread() is self.thread:
                        self.wait()
                    return forward(*arguments, **options)

                head.forward = slow
                try:
                    self.model.predict(data()[0])
                finally:
                    del head.forward
        except BaseException as error:
            self.error = error
            self.inside.set()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run, name="the other")
        self.thread.start()
        assert self.inside.wait(60)
        return self

    def __exit__(self, *_):
        self.leave.set()
        self.thread.join(60)
        assert self.error is None


USES = {
    **REFUSED,
    "predict": ALLOWED["predict"],
    "evaluate": ALLOWED["evaluate"],
    "get_weights": lambda model: model.get_weights(),
    "set_weights": lambda model: model.set_weights([w.copy() for w in model.layers[0].parameters.values()] + [
        w.copy() for w in model.layers[1].parameters.values()]),
    "reset_states": lambda model: model.reset_states(),
    "a copy": copy.deepcopy,
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_other_threads_raise_while_one_thread_trains(name):
    model, plain = make_model(), make_model()
    message = (
        f"^{name}: expected a model that no other thread is using because .*, got one in use by fit in thread 'the"
    )
    with Held(model, "fit"), pytest.raises(RuntimeError, match=message):
        USES[name](model)
    plain.fit([data()], verbose=0)
    np.testing.assert_array_equal(model.parameters, plain.parameters)


@pytest.mark.parametrize("other", ["predict", "evaluate", "fit"])
@pytest.mark.parametrize("name", ["fit", "train_on_batch", "predict", "evaluate", "reset_states"])
def test_a_stateful_model_serves_one_thread(other, name):
    model = make_model(stateful=True)
    with Held(model, other):
        states = {key: state.copy() for key, state in model.get_states().items()}
        with pytest.raises(
            RuntimeError, match=rf"^{name}: .* because (gru is stateful|\w+ changes the \w+), got one in"
        ):
            USES[name](model)
        assert model.get_states().keys() == states.keys()
    USES[name](make_model(stateful=True))


@pytest.mark.parametrize("other", ["predict", "evaluate"])
@pytest.mark.parametrize("name", ["predict", "evaluate", "get_weights", "a copy"])
def test_threads_may_read_a_model_at_the_same_time(other, name):
    model = make_model()
    expected = make_model()
    with Held(model, other):
        found = USES[name](model)
        if name in ("predict", "evaluate"):
            np.testing.assert_array_equal(found, USES[name](expected))


@pytest.mark.parametrize("other", ["predict", "evaluate"])
@pytest.mark.parametrize("name", [*REFUSED, "set_weights"])
def test_a_model_that_is_read_is_not_changed(other, name):
    model = make_model()
    message = f"^{name}: .* in use by {other} in thread 'the other'; give each thread a copy"
    with Held(model, other), pytest.raises(RuntimeError, match=message):
        USES[name](model)
    USES[name](model)


def test_many_threads_get_the_results_of_one():
    model = make_model(return_sequences=True, between=(layers.GlobalMaxPooling1D(), layers.Dense(3, "relu")))
    questions = [data(seed, count=5 + seed) for seed in range(6)]
    answers = [(model.predict(x), model.evaluate(x, y)) for x, y in questions]
    wrong = []

    def ask():
        for _ in range(10):
            for (x, y), (outputs, values) in zip(questions, answers, strict=True):
                if not np.array_equal(model.predict(x), outputs) or model.evaluate(x, y) != values:
                    wrong.append(len(x))

    in_threads(4, ask)
    assert not wrong


def test_an_evaluation_that_creates_the_weights_excludes_other_threads():
    model = Sequential([layers.GRU(3), layers.Dense(2, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    with (
        Held(model, "evaluate"),
        pytest.raises(RuntimeError, match="because the call creates the weights, got one in use"),
    ):
        model.evaluate(*data())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_the_threads_of_its_parent():
    model = make_model()
    with Held(model, "fit"):
        child = os.fork()
        if child == 0:
            done = []
            try:
                model.predict(data()[0])
                # The child's thread gets the same number as a thread of the parent.
                threads = [threading.Thread(target=lambda: done.append(model.fit(*data(), verbose=0)))]
                for thread in threads:
                    thread.start()
                    thread.join()
            finally:
                os._exit(len(done) != 1)
        _, status = os.waitpid(child, 0)
    assert status == 0


# --- Signals --------------------------------------------------------------------------------------------------------


class Alarms:
    """Calls a function about every millisecond, between two instructions of the main thread, until it raises."""

    def __init__(self, function):
        self.function = function
        self.count = 0

    def _ring(self, *_):
        self.count += 1
        self.function()
        self.set()

    def set(self):
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-4, 1e-3))

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self._ring)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predict", "evaluate", "train_on_batch", "get_weights"])
def test_a_model_is_free_after_ctrl_c_wherever_it_comes(name):
    model = make_model()
    x, y = data(count=2)
    call = {
        "predict": lambda: model.predict(x),
        "evaluate": lambda: model.evaluate(x, y),
        "train_on_batch": lambda: model.train_on_batch(x, y),
        "get_weights": model.get_weights,
    }[name]
    failed = []
    with Alarms(interrupt) as alarms:
        while alarms.count < 1000:
            try:
                alarms.set()
                while True:
                    call()
            except KeyboardInterrupt:
                try:
                    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
                except RuntimeError as error:
                    failed.append(str(error))
    assert not failed
    model.fit(*data(), verbose=0)


@pytest.mark.slow
def test_a_signal_handler_may_use_a_model_that_is_in_use():
    model = make_model()
    x, _ = data(count=2)
    with Alarms(model.get_weights) as alarms:
        alarms.set()
        while alarms.count < 1000:
            model.predict(x)


def test_a_model_is_free_after_an_error():
    model = make_model()
    x, y = data()
    x[3, 1, 1] = np.inf
    with pytest.raises(FloatingPointError):
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="y: expected"):
        model.evaluate(x, y[:3])
    with pytest.raises(TypeError):
        model.predict("x")
    model.fit(*data(), verbose=0)
