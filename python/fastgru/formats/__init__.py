"""Model file formats: readers and writers that convert between files and `ModelDescription`.

| format | file names | contents |
| --- | --- | --- |
| ``fastgru`` | ``*.safetensors`` | fastgru's own format, which can hold a training to resume |
| ``tfjs`` | ``model.json`` | a TensorFlow.js layers model; the weights are in files beside it |
| ``keras`` | ``*.keras`` | a Keras 3 model |
| ``keras_h5`` | ``*.h5``, ``*.hdf5`` | a Keras 2 (tf.keras) model |
| ``torch`` | ``*.pt``, ``*.pth``, ``*.torch.safetensors`` | a PyTorch state_dict |
| ``onnx`` | ``*.onnx`` | an ONNX graph |
| ``rtneural`` | ``*.rtneural.json`` | a model for RTNeural, a library for real-time audio |

Each module has ``read(path) -> ModelDescription`` and ``write(path, description)``. Writers raise an error that names
the feature if the format does not support it, before they write anything. Readers raise `ModelFileError` for damaged
and malicious files.
"""

from fastgru.formats.kinds import (
    KINDS,
    kind_of_file,
    kind_of_name,
    read,
    read_weights,
    weights_kind,
    write,
    write_weights,
)

__all__ = ["KINDS", "kind_of_file", "kind_of_name", "read", "read_weights", "weights_kind", "write", "write_weights"]
