"""Data as PyTorch, TensorFlow, pandas and Keras hold it."""

from __future__ import annotations

import models
import numpy as np
import pytest
from models import samples

pytestmark = pytest.mark.isa_independent


def trained(*arguments, **options):
    model = models.classifier()
    model.fit(*arguments, epochs=2, verbose=0, **options)
    return model


def test_tensors_are_arrays(torch):
    x, y = samples(count=40)
    tensor = torch.from_numpy(x).requires_grad_()
    labels, weights = torch.from_numpy(y), torch.linspace(0, 1, 40)
    one = trained(x, y, sample_weight=weights.numpy(), lengths=np.full(40, 4))
    two = trained(tensor, labels, sample_weight=weights, lengths=torch.full((40,), 4))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    lengths = np.full(40, 4)
    assert two.evaluate(tensor, labels, lengths=torch.from_numpy(lengths)) == one.evaluate(x, y, lengths=lengths)
    np.testing.assert_array_equal(two.predict(torch.nn.Parameter(torch.from_numpy(x))), one.predict(x))
    transposed = torch.from_numpy(x).transpose(0, 1).contiguous().transpose(0, 1)
    np.testing.assert_array_equal(two.predict(transposed), one.predict(x))
    assert tensor.grad is None
    assert type(two.predict(tensor)) is np.ndarray


def test_lists_of_tensors_are_lists_of_sequences(torch):
    x, y = samples(count=12)
    parts = [a[: 1 + i % 5] for i, a in enumerate(x)]
    model = models.classifier()
    np.testing.assert_array_equal(model.predict([torch.from_numpy(a) for a in parts]), model.predict(parts))
    tags = models.classifier(return_sequences=True)
    y = [np.zeros(len(a), int) for a in parts]
    found = tags.evaluate([torch.from_numpy(a) for a in parts], [torch.from_numpy(a) for a in y])
    assert found == tags.evaluate(parts, y)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_trains_evaluates_and_predicts(torch, shuffle):
    x, y = samples(count=40)
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))

    def loader(size=8, shuffle=False):
        generator = torch.Generator().manual_seed(0)
        return torch.utils.data.DataLoader(data, batch_size=size, shuffle=shuffle, generator=generator)

    batches = [[(a.numpy(), b.numpy()) for a, b in source] for source in [loader(shuffle=shuffle)] for _ in range(2)]
    one, two = models.classifier(), models.classifier()
    one.fit([*batches[0], *batches[1]], verbose=0)
    history = two.fit(loader(shuffle=shuffle), epochs=2, verbose=0, validation_data=loader(16))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert len(history.history["val_loss"]) == 2
    assert history.params["steps"] is None or history.params["steps"] == 5
    assert two.evaluate(loader(16)) == pytest.approx(one.evaluate(x, y), rel=1e-12)
    np.testing.assert_array_equal(two.predict(loader(16)), one.predict(x))
    with pytest.raises(TypeError, match=r"got TensorDataset, .*; pass torch.utils.data.DataLoader\(dataset"):
        two.fit(data, verbose=0)


def test_a_data_loader_of_lists_pads_itself(torch):
    x, y = samples(count=12)
    parts = [torch.from_numpy(a[: 1 + i % 5]) for i, a in enumerate(x)]

    def collate(pairs):
        return [a for a, _ in pairs], torch.tensor([int(b) for _, b in pairs])

    loader = torch.utils.data.DataLoader(list(zip(parts, y, strict=True)), batch_size=4, collate_fn=collate)
    one, two = models.classifier(), models.classifier()
    one.fit([([a.numpy() for a in parts[i : i + 4]], y[i : i + 4]) for i in (0, 4, 8)], epochs=2, verbose=0)
    two.fit(loader, epochs=2, verbose=0)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    np.testing.assert_array_equal(two.predict(loader), one.predict(parts))


def test_tensors_that_numpy_cannot_read_name_the_remedy(torch):
    x, y = samples()
    model = models.classifier()
    with pytest.raises(TypeError, match=r"x: expected a tensor on the CPU .*, got one on meta; pass x.cpu\(\)"):
        model.fit(torch.from_numpy(x).to("meta"), y, verbose=0)
    with pytest.raises(TypeError, match=r"x: expected a dense tensor .*torch.bfloat16.*; pass x.float\(\)"):
        model.predict(torch.from_numpy(x).bfloat16())
    with pytest.raises(TypeError, match=r"x: expected a dense tensor .* or x.to_dense\(\)"):
        model.predict(torch.from_numpy(x).to_sparse())


@pytest.mark.peers("tensorflow")
def test_tensors_and_data_sets_of_tensorflow():
    import tensorflow as tf

    x, y = samples(count=40)
    one = trained(x, y, 10, shuffle=False)
    two = trained(tf.constant(x), tf.constant(y), 10, shuffle=False)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    three = trained(data, validation_data=data)
    np.testing.assert_array_equal(one.parameters, two.parameters)
    np.testing.assert_array_equal(one.parameters, three.parameters)
    assert three.evaluate(data) == one.evaluate(x, y, 10)
    np.testing.assert_array_equal(three.predict(data), one.predict(x))


def test_a_data_set_of_keras(keras):
    x, y = samples(count=40)

    class Data(keras.utils.PyDataset):
        ended = 0

        def __len__(self):
            return 4

        def __getitem__(self, number):
            return x[number * 10 : number * 10 + 10], y[number * 10 : number * 10 + 10]

        def on_epoch_end(self):
            self.ended += 1

    one, data = trained(x, y, 10, shuffle=False), Data()
    two = trained(data, shuffle=False, validation_data=Data())
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert data.ended == 2
    np.testing.assert_array_equal(two.predict(Data()), one.predict(x))


@pytest.mark.peers("pandas")
def test_columns_of_pandas():
    import pandas

    x, y = samples(count=40)
    table = pandas.DataFrame({"label": pandas.array(y, "Int64"), "weight": np.linspace(0, 1, 40)})
    one = trained(x, y, sample_weight=np.linspace(0, 1, 40))
    two = trained(x, table["label"], sample_weight=table["weight"])
    np.testing.assert_array_equal(one.parameters, two.parameters)
    targets = models.regressor(outputs=2)
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    assert targets.evaluate(x, frame) == targets.evaluate(x, frame.to_numpy())
