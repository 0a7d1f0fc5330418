"""Bad input: each case raises one error that names the argument, the expected value and the given value."""

from __future__ import annotations

import functools

import fastgru
import numpy as np
import pytest
from fastgru import Sequential, functional, layers, optimizers
from models import classifier, regressor

F32 = np.float32


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def forward(**changes):
    arguments = {"x": zeros(2, 3, 4), "kernel": zeros(4, 15), "recurrent_kernel": zeros(5, 15)} | changes
    return functional.gru_forward(**arguments)


def backward(d_outputs=None, d_state=None, **options):
    tape = functional.GRUTape()
    forward(tape=tape, bias=zeros(2, 15))
    return functional.gru_backward(tape, d_outputs, d_state, **options)


compiled = functools.partial(classifier, classes=3, input_shape=(3, 2), dtype="float32")


def tokens():
    return Sequential([layers.Embedding(5, 2, input_shape=(3,)), layers.GRU(3)])


def plain():
    model = Sequential([layers.Dense(3, "softmax", input_shape=(3,))])
    model.compile("adam", "categorical_crossentropy")
    return model


def steps():
    model = Sequential([layers.Dense(3, "softmax", input_shape=(None, 4, 2))])
    model.compile("adam", "categorical_crossentropy")
    return model


def masked():
    return Sequential([layers.Masking(input_shape=(3, 1)), layers.GRU(3)])


def stateful():
    return Sequential([layers.GRU(3, stateful=True, input_shape=(3, 2))])


def several():
    model = Sequential([layers.GRU(3, return_state=True, input_shape=(3, 2))])
    model.compile("adam", "mse")
    return model


regression = functools.partial(regressor, 3, input_shape=(3, 2))


X, Y = zeros(6, 3, 2), np.arange(6) % 3


def fit(x=X, y=Y, **options):
    return compiled().fit(x, y, **({"verbose": 0} | options))


def read_only(array):
    array.flags.writeable = False
    return array


def adam(count=3, m=None, **options):
    m = zeros(count) if m is None else m
    functional.adam_update(zeros(count), zeros(count), m, zeros(count), **({"step": 1} | options))


# id, call, error, message (a regular expression)
TABLE = [
    # functional: shapes
    ("x of the wrong rank", lambda: forward(x=zeros(2, 4)), ValueError,
     r"x: expected shape \(N, T, 4\) because kernel has 4 input features, got \(2, 4\)"),
    ("x with other features", lambda: forward(x=zeros(64, 28, 32)), ValueError,
     r"x: expected shape \(N, T, 4\) because kernel has 4 input features, got \(64, 28, 32\)"),
    ("kernel for other units", lambda: forward(kernel=zeros(4, 18)), ValueError,
     r"kernel: expected shape \(F, 15\) because recurrent_kernel has 5 units, got \(4, 18\)"),
    ("recurrent kernel that is no (H, 3H)", lambda: forward(recurrent_kernel=zeros(5, 14)), ValueError,
     r"recurrent_kernel: expected shape \(H, 3H\) with H >= 1, got \(5, 14\)"),
    ("recurrent kernel without units", lambda: forward(recurrent_kernel=zeros(0, 0)), ValueError,
     r"recurrent_kernel: expected shape \(H, 3H\) with H >= 1, got \(0, 0\)"),
    ("bias of the wrong size", lambda: forward(bias=zeros(5)), ValueError,
     r"bias: expected shape \(15,\) because recurrent_kernel has 5 units.*, got \(5,\)"),
    ("bias with three rows", lambda: forward(bias=zeros(3, 15)), ValueError, r"bias: expected shape \(2, 15\)"),
    ("h0 for other rows", lambda: forward(initial_state=zeros(3, 5)), ValueError,
     r"initial_state: expected shape \(2, 5\) because x has 2 rows and recurrent_kernel 5 units, got \(3, 5\)"),
    ("unknown activation", lambda: forward(activation="selu"), ValueError,
     r"activation: expected one of 'tanh', 'relu', 'linear', got 'selu'"),
    ("unknown recurrent activation", lambda: forward(recurrent_activation="tanh"), ValueError,
     r"recurrent_activation: expected one of 'sigmoid', 'hard_sigmoid', 'hard_sigmoid_tfjs', got 'tanh'"),
    # functional: dtypes
    ("float16", lambda: forward(x=zeros(2, 3, 4, dtype=np.float16)), TypeError,
     r"x: expected float32 or float64, got float16; convert it with x.astype\('float32'\)"),
    ("integers", lambda: forward(x=zeros(2, 3, 4, dtype=np.int64)), TypeError,
     r"x: expected float32 or float64, got int64"),
    ("bytes", lambda: forward(x=zeros(2, 3, 4, dtype=np.uint8)), TypeError,
     r"x: expected float32 or float64, got uint8"),
    ("objects", lambda: forward(x=np.full((2, 3, 4), None)), TypeError, r"x: expected float32 or float64, got object"),
    ("complex", lambda: forward(x=zeros(2, 3, 4, dtype=np.complex128)), TypeError, r"got complex128"),
    ("a list", lambda: forward(x=[[[0.0] * 4]]), TypeError,
     r"x: expected a NumPy array, got list; convert it with numpy.asarray"),
    ("mixed dtypes", lambda: forward(kernel=zeros(4, 15, dtype=np.float64)), TypeError,
     r"kernel: expected float32 like x, got float64"),
    # functional: gradients
    ("an empty tape", lambda: functional.gru_backward(functional.GRUTape(), None, zeros(2, 5)), ValueError,
     r"tape: expected a recorded tape, got an empty one; pass it to gru_forward first"),
    ("no gradient", backward, ValueError, r"d_outputs, d_state: expected a gradient .* got neither"),
    ("gradient of another shape", lambda: backward(zeros(2, 4, 5)), ValueError,
     r"d_outputs: expected shape \(2, 3, 5\) because the tape recorded that shape, got \(2, 4, 5\)"),
    ("gradient of another dtype", lambda: backward(None, zeros(2, 5, dtype=np.float64)), TypeError,
     r"d_state: expected float32 like the tape, got float64"),
    ("read-only output", lambda: backward(None, zeros(2, 5), out=(read_only(zeros(4, 15)), zeros(5, 15), zeros(2, 15))),
     ValueError, r"d_kernel: expected a writable array, got a read-only one"),
    ("strided output", lambda: backward(None, zeros(2, 5), out=(zeros(4, 30)[:, ::2], zeros(5, 15), zeros(2, 15))),
     ValueError, r"d_kernel: expected a C-contiguous, aligned array"),
    ("output of another shape", lambda: backward(None, zeros(2, 5), out=(zeros(4, 15), zeros(5, 15), zeros(15))),
     ValueError, r"d_bias: expected shape \(2, 15\) because the tape recorded that shape, got \(15,\)"),
    ("input gradient of another shape", lambda: backward(None, zeros(2, 5), input_gradient=zeros(3, 2, 4)), ValueError,
     r"input_gradient: expected shape \(2, 3, 4\) because the tape recorded that shape, got \(3, 2, 4\)"),
    ("input gradient of another dtype",
     lambda: backward(None, zeros(2, 5), input_gradient=zeros(2, 3, 4, dtype=np.float64)), TypeError,
     r"input_gradient: expected float32 like the tape, got float64"),
    ("input gradient that cannot be written",
     lambda: backward(None, zeros(2, 5), input_gradient=read_only(zeros(2, 3, 4))), ValueError,
     r"input_gradient: expected a writable array, got a read-only one"),
    ("input gradient with a strided last axis",
     lambda: backward(None, zeros(2, 5), input_gradient=zeros(2, 3, 8)[..., ::2]), ValueError,
     r"input_gradient: expected an aligned array .* with a contiguous last axis to write to"),
    ("input gradient over the outputs' gradient", lambda: backward(d := zeros(2, 3, 5), input_gradient=d[..., :4]),
     ValueError, r"input_gradient: expected an array that shares no memory, got one that overlaps d_outputs"),
    ("outputs that overlap", lambda: backward(None, zeros(2, 5), out=((a := zeros(9, 15))[:4], a[3:8], zeros(2, 15))),
     ValueError, r"d_kernel: expected an array that shares no memory, got one that overlaps d_recurrent_kernel"),
    ("Adam's moments in one array", lambda: functional.adam_update(zeros(3), zeros(3), a := zeros(3), a, step=1),
     ValueError, r"m: expected an array that shares no memory, got one that overlaps v"),
    # functional: the others
    ("dense with other features", lambda: functional.dense_forward(zeros(2, 3), zeros(4, 5)), ValueError,
     r"x: expected shape \(N, 4\) because kernel has 4 input features, got \(2, 3\)"),
    ("dense with another bias", lambda: functional.dense_forward(zeros(2, 4), zeros(4, 5), zeros(4)), ValueError,
     r"bias: expected shape \(5,\) because kernel has 5 columns, got \(4,\)"),
    ("no classes", lambda: functional.softmax(zeros(2, 0)), ValueError, r"logits: expected at least one class"),
    ("label above the classes", lambda: functional.softmax_cross_entropy(zeros(3, 4), np.array([0, 4, 1])), ValueError,
     r"labels: expected classes from 0 to 3 because logits has 4 columns, got 4 at index 1"),
    ("negative label", lambda: functional.softmax_cross_entropy(zeros(3, 4), np.array([0, 1, -1])), ValueError,
     r"labels: expected classes from 0 to 3 .*, got -1 at index 2"),
    ("float labels", lambda: functional.softmax_cross_entropy(zeros(3, 4), zeros(3)), TypeError,
     r"labels: expected integers \(N,\), or targets \(N, C\)"),
    ("labels for other rows", lambda: functional.softmax_cross_entropy(zeros(3, 4), np.zeros(2, int)), ValueError,
     r"labels: expected shape \(3,\) because logits has 3 rows, got \(2,\)"),
    ("targets for other classes", lambda: functional.softmax_cross_entropy(zeros(3, 4), zeros(3, 5)), ValueError,
     r"labels: expected shape \(3, 4\)"),
    ("Adam's step 0", lambda: adam(step=0), ValueError, r"step: expected 1 for the first update, got 0"),
    ("Adam's other moments", lambda: adam(m=zeros(4)), ValueError,
     r"m: expected shape \(3,\) because parameters has 3 elements, got \(4,\)"),
    ("Adam's read-only moments", lambda: adam(m=read_only(zeros(3))), ValueError, r"m: expected a writable array"),
    ("Adam's unknown form", lambda: adam(form="tf1"), ValueError, r"form: expected one of 'keras', 'tfjs', 'pytorch'"),
    # layers and models
    ("no units", lambda: layers.GRU(0), ValueError, r"units: expected an integer of at least 1, got 0"),
    ("negative units", lambda: layers.Dense(-3), ValueError, r"units: expected an integer of at least 1, got -3"),
    ("half a unit", lambda: layers.GRU(1.5), TypeError, r"units: expected an integer, got 1.5"),
    ("a true unit", lambda: layers.GRU(True), TypeError, r"units: expected an integer, got True"),
    ("unknown initializer", lambda: layers.GRU(3, kernel_initializer="he"), ValueError,
     r"kernel_initializer: expected one of .*'glorot_uniform'.*, got 'he'"),
    ("unknown layer activation", lambda: layers.Dense(3, "sotfmax"), ValueError, r"activation: expected one of"),
    ("input shape that is a number", lambda: layers.GRU(3, input_shape=28), TypeError,
     r"input_shape: expected a tuple without the batch axis, got 28"),
    ("input shape of the wrong rank", lambda: Sequential([layers.GRU(3, input_shape=(28,))]), ValueError,
     r"gru: expected input of shape \(N, T, F\) with F known, got \(N, 28\)"),
    ("Dense on an unknown size",
     lambda: Sequential([layers.Flatten(input_shape=(None, 2)), layers.Dense(2)]), ValueError,
     r"dense: expected input of shape \(N, ..., F\) with a known F, got \(N, T\)"),
    ("a shared layer", lambda: Sequential([layer := layers.GRU(3, input_shape=(4, 3), return_sequences=True), layer]),
     ValueError, r"layer: expected a new layer because layers cannot be shared, got gru of this model"),
    ("no layer", lambda: Sequential(["gru"]), TypeError, r"layer: expected a layer of fastgru.layers, got 'gru'"),
    ("a layer without a list", lambda: Sequential(layers.GRU(3)), TypeError, r"layers: expected a list of layers"),
    ("two layers of one name", lambda: Sequential(
        [layers.GRU(3, input_shape=(4, 2), name="a"), layers.Dense(2, name="a")]), ValueError,
     r"name: expected a different name for each layer, got 'a' twice"),
    ("unknown dtype", lambda: Sequential(dtype="float16"), ValueError,
     r"dtype: expected 'float32' or 'float64', got 'float16'"),
    ("learning rate of -1", lambda: optimizers.Adam(-1), ValueError,
     r"learning_rate: expected a finite number above 0, got -1"),
    ("learning rate of nan", lambda: optimizers.Adam(np.nan), ValueError, r"learning_rate: expected a finite number"),
    ("beta of 1", lambda: optimizers.Adam(beta_1=1), ValueError,
     r"beta_1: expected a finite number at least 0 and below 1, got 1"),
    ("unknown optimizer", lambda: compiled().compile("sgdd"), ValueError,
     r"optimizer: expected one of 'adam', 'adamw', 'sgd', 'rmsprop'"),
    ("unknown loss", lambda: compiled().compile("adam", "mea"), ValueError, r"loss: expected one of"),
    ("unknown metric", lambda: compiled().compile(loss="categorical_crossentropy", metrics=["f2"]), ValueError,
     r"metrics: expected some of 'accuracy'"),
    ("metric without a list", lambda: compiled().compile(loss="mse", metrics="accuracy"), TypeError,
     r"metrics: expected a list, got 'accuracy'; write metrics=\['accuracy'\]"),
    ("loss without softmax", lambda: Sequential([layers.Dense(3, input_shape=(2,))]).compile(
        loss="categorical_crossentropy"), ValueError,
     r"loss: categorical_crossentropy needs a last layer with activation='softmax', got 'linear'"),
    ("loss without Dense", lambda: Sequential([layers.GRU(3, input_shape=(3, 2))]).compile(
        loss="categorical_crossentropy"), ValueError,
     r"loss: categorical_crossentropy needs a last layer with activation='softmax', got a GRU, which has none"),
    ("fit before compile", lambda: Sequential([layers.GRU(3, input_shape=(3, 2))]).fit(X, Y), RuntimeError,
     r"the model is not compiled: call compile"),
    ("predict before build", lambda: Sequential([layers.GRU(3)]).predict(X), ValueError, r"the model has no weights"),
    # fit
    ("fit on a list", lambda: fit([[1.0]]), ValueError, r"x: expected shape \(N, 3, 2\) .* got \(1, 1\)"),
    ("fit on an object", lambda: fit(object(), zeros(6)), TypeError,
     r"x: expected an array of real numbers, got object"),
    ("a mask", lambda: fit(np.ma.masked_array(X, X > 0)), TypeError, r"x: expected an array without a mask"),
    ("an optimizer of another model", lambda: [compiled().compile(o) for o in [optimizers.Adam()] if not o.update(
        zeros(3), zeros(3))], ValueError, r"optimizer: expected an optimizer of no other model"),
    ("a layer added behind softmax", lambda: [m.fit(X, Y) for m in [compiled()] if not m.add(layers.Dense(3))],
     ValueError, r"loss: categorical_crossentropy needs a last layer with activation='softmax', got 'linear'"),
    ("fit on dates", lambda: fit(zeros(6, 3, 2, dtype="M8[s]")), TypeError,
     r"x: expected an array of real numbers, got ndarray of datetime64\[s\]; convert it to numbers"),
    ("a generator too late", lambda: compiled()._network.draw_from(np.random.default_rng(0)), ValueError,
     r"generator: expected a model without weights because they are drawn from it, got a built model"),
    ("fit on objects", lambda: fit(np.full((6, 3, 2), None)), TypeError,
     r"x: expected .* real.* got ndarray of object"),
    ("fit on complex numbers", lambda: fit(zeros(6, 3, 2, dtype=np.complex64)), TypeError,
     r"x: .* got ndarray of complex64; pass x.real and x.imag as features"),
    ("fit on text", lambda: fit(np.array(["a"] * 6)), TypeError, r"x: .* real numbers, got ndarray of <U1"),
    ("predict on objects", lambda: compiled().predict(np.full((6, 3, 2), None)), TypeError,
     r"x: .* got ndarray of object"),
    ("other features in a Dense", lambda: compiled().get_layer("dense")(zeros(3, 2)), ValueError,
     r"dense: expected input of shape \(N, ..., 4\), got \(3, 2\)"),
    ("other features in a GRU", lambda: compiled().get_layer("gru")(zeros(3, 2, 5)), ValueError,
     r"x: expected shape \(N, T, 2\) because kernel has 2 input features, got \(3, 2, 5\)"),
    ("a layer on complex numbers", lambda: layers.Dense(2)(zeros(3, 2, dtype=complex)), TypeError, r"x: .* complex128"),
    ("Rescaling by nothing", lambda: layers.Rescaling(None), TypeError, r"scale: expected a number, got None"),
    ("Rescaling by infinity", lambda: layers.Rescaling(1, np.inf), ValueError, r"offset: expected a finite number"),
    ("fit on another shape", lambda: fit(zeros(6, 3, 9)), ValueError,
     r"x: expected shape \(N, 3, 2\) because that is the model's input, got \(6, 3, 9\)"),
    ("fit on nothing", lambda: fit(X[:0], Y[:0]), ValueError, r"x: expected at least one sample .*, got 0"),
    ("too few labels", lambda: fit(y=Y[:5]), ValueError, r"y: expected 6 labels because there are 6 samples, got 5"),
    ("label outside the classes", lambda: fit(y=Y + 1), ValueError,
     r"y: expected classes from 0 to 2 because the model has 3 outputs, got 3 at index 2"),
    ("float labels in fit", lambda: fit(y=Y.astype(float)), TypeError, r"y: expected integer classes, or targets"),
    ("one-hot of other classes", lambda: fit(y=np.eye(4)[Y]), ValueError,
     r"y: expected shape \(N,\) or \(N, 3\) because the model has 3 outputs, got \(6, 4\)"),
    ("targets with nan", lambda: fit(y=np.full((6, 3), np.nan)), ValueError,
     r"y: expected targets of at least 0, got nan at index \(0, 0\)"),
    ("object labels", lambda: fit(y=np.array([None] * 6)), TypeError, r"y: expected integer classes"),
    ("no batch", lambda: fit(batch_size=0), ValueError, r"batch_size: expected an integer of at least 1, got 0"),
    ("negative epochs", lambda: fit(epochs=-1), ValueError, r"epochs: expected an integer of at least 0, got -1"),
    ("whole validation split", lambda: fit(validation_split=1.0), ValueError, r"validation_split: .* below 1, got 1.0"),
    ("empty validation split", lambda: fit(validation_split=0.99), ValueError,
     r"x: expected at least one sample to train and to validate on, got 6 after validation_split=0.99"),
    ("both validations", lambda: fit(validation_split=0.5, validation_data=(X, Y)), ValueError,
     r"validation_split: expected 0 because validation_data is given"),
    ("validation of another shape", lambda: fit(validation_data=(zeros(6, 3, 1), Y)), ValueError,
     r"validation_data\[0\]: expected shape \(N, 3, 2\)"),
    ("validation that is no pair", lambda: fit(validation_data=X), TypeError,
     r"validation_data: expected \(x, y\), .*, got ndarray"),
    ("unknown verbosity", lambda: fit(verbose=7), ValueError, r"verbose: expected 0, 1, 2 or 'auto', got 7"),
    ("evaluate on nothing", lambda: compiled().evaluate(X[:0], Y[:0]), ValueError, r"x: expected at least one sample"),
    ("predict on another shape", lambda: compiled().predict(zeros(6, 2, 2)), ValueError,
     r"x: expected shape \(N, 3, 2\) because that is the model's input, got \(6, 2, 2\)"),
    # layers of the whole toolbox
    ("dropout of 2", lambda: layers.GRU(3, dropout=2), ValueError,
     r"dropout: expected a finite number at least 0 and below 1, got 2"),
    ("recurrent dropout of 1", lambda: layers.GRU(3, recurrent_dropout=1.0), ValueError,
     r"recurrent_dropout: expected a finite number at least 0 and below 1, got 1.0"),
    ("a Dropout of -1", lambda: layers.Dropout(-1), ValueError, r"rate: expected a finite number at least 0"),
    ("a flag that is a number", lambda: layers.GRU(3, stateful=1), TypeError, r"stateful: expected True or False"),
    ("unknown regularizer", lambda: layers.GRU(3, kernel_regularizer="l3"), ValueError,
     r"kernel_regularizer: expected one of 'l1', 'l2', 'l1_l2', 'L1', 'L2', 'L1L2', got 'l3'"),
    ("negative l2", lambda: fastgru.regularizers.L2(-1), ValueError,
     r"l2: expected a finite number at least 0, got -1"),
    ("a GRU after a GRU without sequences", lambda: Sequential([layers.GRU(3, input_shape=(4, 2)), layers.GRU(3)]),
     ValueError, r"gru_1: expected input of shape \(N, T, F\).* a GRU before it needs return_sequences=True"),
    ("a layer after one of several outputs",
     lambda: Sequential([layers.GRU(3, return_state=True, input_shape=(4, 2)), layers.Dense(3)]), ValueError,
     r"gru: expected to be the last layer because it returns several arrays"),
    ("a Bidirectional of a Dense", lambda: layers.Bidirectional(layers.Dense(3)), TypeError,
     r"layer: expected a GRU, got"),
    ("one state for two directions", lambda: layers.Bidirectional(layers.GRU(3))(X, initial_state=zeros(6, 3)),
     TypeError, r"initial_state: expected a pair of arrays \(forward, backward\), got ndarray"),
    ("three states for two directions", lambda: layers.Bidirectional(layers.GRU(3))(X, initial_state=[zeros(6, 3)] * 3),
     TypeError, r"initial_state: expected a pair of arrays \(forward, backward\), got list of 3"),
    ("unknown merge", lambda: layers.Bidirectional(layers.GRU(3), "max"), ValueError,
     r"merge_mode: expected one of 'concat', 'sum', 'mul', 'ave', got 'max'"),
    ("two forward layers", lambda: layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3)), ValueError,
     r"backward_layer: expected go_backwards=True because layer has the opposite, got the same"),
    ("directions of different size",
     lambda: layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(4, go_backwards=True)), ValueError,
     r"backward_layer: expected units=3 as in layer, got 4"),
    ("an Embedding in the middle",
     lambda: Sequential([layers.GRU(3, input_shape=(4, 2)), layers.Embedding(3, 2)]), ValueError,
     r"embedding: expected to be the first layer because its input is tokens"),
    ("float tokens to make a model for", lambda: [
        m.fit(zeros(2, 3), zeros(2)) for m in [Sequential([layers.Embedding(3, 2), layers.GRU(1)])]
        if not m.compile("adam", "mse")
     ], TypeError, r"x: expected integers because the model begins with an Embedding, got float32"),
    ("tokens as floats", lambda: tokens().predict(zeros(2, 3)), TypeError, r"x: expected integers.*, got float32"),
    ("a token outside", lambda: tokens().predict(np.array([[0, 1, 5]])), ValueError,
     r"x: expected tokens from 0 to 4 because input_dim is 5, got 5 at index \(0, 2\)"),
    ("a masked step in the middle", lambda: masked().predict(np.array([[[1.0], [0], [1]]], F32)), ValueError,
     r"x, masked by masking: expected masked steps at the end of a sequence only, got one at step 1 of sample 0"),
    ("stateful batches of different sizes", lambda: stateful().predict(zeros(5, 3, 2), batch_size=3), ValueError,
     r"gru: expected 3 rows because it is stateful and the previous batch had 3, got 2; call reset_states"),
    ("a layer half frozen", lambda: setattr(layers.Dense(3), "trainable", 0.5), TypeError,
     r"trainable: expected True or False, got 0.5"),
    ("a layer that is not there", lambda: compiled().get_layer("lstm"), ValueError,
     r"name: expected one of 'gru', 'dense', got 'lstm'"),
    ("weights of a layer that do not fit", lambda: compiled().get_layer(index=1).set_weights([zeros(4, 3), zeros(4)]),
     ValueError, r"weights: expected shape \(3,\) for bias, got \(4,\)"),
    ("validation steps of arrays", lambda: fit(validation_data=(X, Y), validation_steps=1), ValueError,
     r"validation_steps: expected None because validation_data is not an iterable of batches"),
    # lengths and weights
    ("a length above T", lambda: fit(lengths=[3, 3, 4, 3, 3, 3]), ValueError,
     r"lengths: expected lengths from 0 to 3 because x has 3 steps, got 4 at index 2"),
    ("a negative length", lambda: fit(lengths=[3, -1, 3, 3, 3, 3]), ValueError, r"lengths: .* got -1 at index 1"),
    ("float lengths", lambda: fit(lengths=[3.0] * 6), TypeError, r"lengths: expected integers, got float64"),
    ("too few lengths", lambda: fit(lengths=[3] * 5), ValueError,
     r"lengths: expected shape \(6,\), one for each sample, got \(5,\)"),
    ("a length above T in predict", lambda: compiled().predict(X, lengths=[4] * 6), ValueError, r"lengths: .* got 4"),
    ("lengths without steps", lambda: plain().fit(zeros(4, 3), Y[:4], lengths=[1, 2, 3, 3], verbose=0), ValueError,
     r"lengths: expected None because x of shape \(4, 3\) has no time axis, got lengths"),
    ("lengths without steps in predict", lambda: plain().predict(zeros(4, 3), lengths=[1, 2, 3, 3]), ValueError,
     r"lengths: expected None because x of shape \(4, 3\) has no time axis, got lengths"),
    ("lengths without steps in a layer", lambda: layers.Dense(3)(zeros(4, 3), lengths=[1, 2, 3, 3]), ValueError,
     r"lengths: expected None because x of shape \(4, 3\) has no time axis, got lengths"),
    ("labels of other steps", lambda: steps().train_on_batch(zeros(2, 5, 4, 2), np.zeros((2, 3, 4), int)), ValueError,
     r"y: expected shape \(2, 5, 4\) because .*, got \(2, 3, 4\)"),
    ("labels of another third axis", lambda: steps().train_on_batch(zeros(2, 5, 4, 2), np.zeros((2, 5, 3), int)),
     ValueError, r"y: expected shape \(2, 5, 4\) because .*, got \(2, 5, 3\)"),
    ("masked labels", lambda: fit(y=np.ma.masked_array(Y, Y > 1)), TypeError, r"y: expected an array without a mask"),
    ("masked targets", lambda: regression().fit(X, np.ma.masked_array(zeros(6), Y > 1)), TypeError,
     r"y: expected an array without a mask"),
    ("masked weights", lambda: fit(sample_weight=np.ma.masked_array(zeros(6), Y > 1)), TypeError,
     r"sample_weight: expected an array without a mask"),
    ("masked lengths", lambda: fit(lengths=np.ma.masked_array(Y, Y > 1)), TypeError,
     r"lengths: expected an array without a mask"),
    ("lists of different lengths as labels", lambda: fit(y=[[1], [2, 3]]), ValueError,
     r"y: expected an array because x is an array, got arrays of different lengths"),
    ("object lengths", lambda: fit(lengths=np.array([None] * 6)), TypeError, r"lengths: expected integers, got object"),
    ("object weights", lambda: fit(sample_weight=np.array([None] * 6)), TypeError,
     r"sample_weight: expected numbers, got object"),
    ("sequences that are none", lambda: fastgru.utils.pad_with_lengths(5), TypeError,
     r"sequences: expected a list of arrays, got 5"),
    ("sequences of text", lambda: fastgru.utils.pad_with_lengths([[1.0], ["a"]]), TypeError,
     r"sequences: expected numbers, got <U1 at index 1"),
    ("sequences of uneven lists", lambda: fastgru.utils.pad_with_lengths([[[1], [2, 3]]]), ValueError,
     r"sequences: expected arrays, got lists of different lengths at index 0"),
    ("half a step", lambda: fastgru.utils.pad_with_lengths([[1.0]], steps=2.5), TypeError,
     r"steps: expected an integer, got 2.5"),
    ("a negative weight", lambda: fit(sample_weight=[1, 1, -1, 1, 1, 1]), ValueError,
     r"sample_weight: expected finite numbers of at least 0, got -1 at index 2"),
    ("a weight of nan", lambda: fit(sample_weight=[1, 1, 1, 1, 1, np.nan]), ValueError, r"got nan at index 5"),
    ("too many weights", lambda: fit(sample_weight=np.ones(7)), ValueError,
     r"sample_weight: expected shape \(6,\), got \(7,\)"),
    ("weights of a class that is not", lambda: fit(class_weight={3: 1.0}), ValueError,
     r"class_weight: expected classes from 0 to 2, got 3"),
    ("class weights as a list", lambda: fit(class_weight=[1, 2, 3]), TypeError, r"class_weight: expected a dict"),
    ("class weights in a regression", lambda: regression().fit(X, Y.astype(F32), class_weight={0: 1.0}, verbose=0),
     ValueError, r"class_weight: expected None because mean_squared_error has no classes"),
    ("targets of another shape in a regression", lambda: regression().fit(X, zeros(6, 2), verbose=0), ValueError,
     r"y: expected shape \(N, 1\), that of the model's output, got \(6, 2\)"),
    ("steps per epoch of an array", lambda: fit(steps_per_epoch=2), ValueError,
     r"steps_per_epoch: expected None because x is an array"),
    ("lengths beside a stream", lambda: compiled().fit([(X, Y)], lengths=[1]), ValueError,
     r"lengths: expected None because x is an iterable of batches"),
    ("a loss of several outputs", lambda: several().fit(X, Y, verbose=0), ValueError,
     r"gru: expected a last layer with one output for a loss"),
    # optimizers, schedules, losses and metrics
    ("momentum of 1", lambda: optimizers.SGD(momentum=1), ValueError, r"momentum: expected .* below 1, got 1"),
    ("clipping at 0", lambda: optimizers.Adam(clipvalue=0), ValueError,
     r"clipvalue: expected a finite number above 0"),
    ("clipping at nan", lambda: optimizers.Adam(global_clipnorm=np.nan), ValueError, r"global_clipnorm: expected"),
    ("a schedule of no steps", lambda: fastgru.schedules.CosineDecay(0.1, 0), ValueError,
     r"decay_steps: expected an integer of at least 1, got 0"),
    ("a schedule that is a function", lambda: optimizers.Adam(lambda step: 0.1), TypeError, r"learning_rate: expected"),
    ("label smoothing of 2", lambda: fastgru.losses.CategoricalCrossentropy(label_smoothing=2), ValueError,
     r"label_smoothing: expected"),
    ("Huber's delta of 0", lambda: fastgru.losses.Huber(0), ValueError, r"delta: expected"),
    ("the best 0", lambda: fastgru.metrics.TopKAccuracy(k=0), ValueError, r"k: expected an integer of at least 1"),
    ("accuracy of a regression", lambda: regression(metrics=["accuracy"]), ValueError,
     r"metrics: accuracy does not support the loss mean_squared_error, whose targets are numbers; it supports classes"),
    ("metrics by output", lambda: regression(metrics={"dense": "mae"}), TypeError,
     r"metrics: expected a list, got dict"),
    ("a metric without a list", lambda: regression(metrics=fastgru.metrics.MeanAbsoluteError()), TypeError,
     r"metrics: expected a list, got MeanAbsoluteError\(\); write metrics=\[MeanAbsoluteError\(\)\]"),
    ("lists of metrics", lambda: regression(metrics=[["mae"]]), TypeError,
     r"metrics: expected names, functions, or some of .*, got \['mae'\]"),
    ("a number as metric", lambda: regression(metrics=[3]), TypeError,
     r"metrics: expected names, functions, or some of .*, got 3"),
    # what to hold back
    ("indices outside", lambda: fit(validation_split=[0, 6]), ValueError,
     r"validation_split: expected indices from 0 to 5 because x has 6 samples, got 6"),
    ("indices from the end", lambda: fit(validation_split=np.array([-1])), ValueError, r"validation_split: .* got -1"),
    ("indices twice", lambda: fit(validation_split=[1, 1]), ValueError,
     r"validation_split: expected each index once, got duplicates"),
    ("indices that are a mask", lambda: fit(validation_split=Y > 1), TypeError,
     r"validation_split: expected a number, or integers \(K,\), got bool of shape \(6,\)"),
    ("no indices", lambda: fit(validation_split=np.array([], int)), ValueError,
     r"x: expected at least one sample to train and to validate on, got 6 after validation_split=0 indices"),
    ("all indices", lambda: fit(validation_split=np.arange(6)), ValueError, r"got 6 after validation_split=6 indices"),
    ("indices of a stream", lambda: compiled().fit([(X, Y)], validation_split=[0]), ValueError,
     r"validation_split: expected 0 because x is an iterable of batches, got 1 indices"),
    ("indices that are masked", lambda: fit(validation_split=np.ma.masked_array([0, 1], [True, False])), TypeError,
     r"validation_split: expected an array without a mask"),
    # seeds and threads
    ("negative seed", lambda: fastgru.set_seed(-1), ValueError, r"seed: expected an integer of at least 0, got -1"),
    ("seed of text", lambda: fastgru.set_seed("0"), TypeError, r"seed: expected an integer, got '0'"),
    ("negative synthetic size", lambda: fastgru.datasets.synthetic.load_data(train=-1), ValueError, r"train: expected"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_bad_input_raises_one_clear_error(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


ENDLESS = np.broadcast_to(zeros(4), (2**40, 2**10, 4))  # takes 16 bytes of memory
ABSURD = {
    "input": lambda: functional.gru_forward(ENDLESS, zeros(4, 15), zeros(5, 15)),
    "input with a tape": lambda: functional.gru_forward(
        ENDLESS, zeros(4, 15), zeros(5, 15), tape=functional.GRUTape(), return_sequences=False
    ),
    "GRU": lambda: Sequential([layers.GRU(10**9, input_shape=(28, 28))]),
    "Bidirectional": lambda: Sequential([layers.Bidirectional(layers.GRU(10**12), input_shape=(28, 28))]),
    "Dense": lambda: Sequential([layers.Dense(10**15, input_shape=(30,))]),
    "Dense beyond 64 bits": lambda: Sequential([layers.Dense(10**20, input_shape=(30,))]),
    "Dense on its own": lambda: layers.Dense(10**15)(zeros(2, 3)),
    "Embedding": lambda: Sequential([layers.Embedding(10**12, 10**3, input_shape=(3,))]),
    "Embedding on its own": lambda: layers.Embedding(10**15, 10**3)(np.zeros((2, 3), int)),
    "padding": lambda: fastgru.utils.pad_with_lengths([zeros(2, 3)], steps=10**14),
    "padding beyond 64 bits": lambda: fastgru.utils.pad_with_lengths([zeros(2, 3)], steps=10**20),
}


@pytest.mark.parametrize("call", ABSURD.values(), ids=ABSURD)
def test_absurd_sizes_are_memory_errors_before_anything_is_allocated(call):
    with pytest.raises(MemoryError):
        call()


def test_bad_arguments_of_fit_change_nothing():
    model = compiled()
    before = model.parameters.copy()
    with pytest.raises(ValueError, match="at index 2"):
        model.fit(X, Y + 1, verbose=0)
    np.testing.assert_array_equal(model.parameters, before)
    assert model.optimizer.step == 0


@pytest.mark.parametrize("use", [fastgru.load_model, lambda path: compiled().save(path)], ids=["load_model", "save"])
@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeError, "path: expected a str or an os.PathLike, got NoneType"),
        (0, TypeError, "path: expected a str or an os.PathLike, got int"),
        ("", ValueError, "path: expected the name of a file, got an empty one"),
    ],
)
def test_values_that_are_not_paths_raise(use, path, error, message):
    with pytest.raises(error, match=message):
        use(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere: expected an existing folder for m.safetensors, got none; create it"
    ):
        compiled().save(tmp_path / "nowhere" / "m.safetensors")
