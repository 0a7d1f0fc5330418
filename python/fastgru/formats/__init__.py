"""Files <-> descriptions of models. Formats know files, not models; TensorFlow.js uses Keras' tables.

| kind | names | what it is |
| --- | --- | --- |
| ``fastgru`` | ``*.safetensors`` | this package's own, with all that training needs to go on with the same bits |
| ``tfjs`` | ``model.json`` | a TensorFlow.js layers model, with its weights beside it |
| ``keras`` | ``*.keras`` | a Keras 3 model |
| ``keras_h5`` | ``*.h5``, ``*.hdf5`` | a Keras 2 (tf.keras) model |
| ``torch`` | ``*.pt``, ``*.pth``, ``*.torch.safetensors`` | a PyTorch state_dict |
| ``onnx`` | ``*.onnx`` | an ONNX graph |
| ``rtneural`` | ``*.rtneural.json`` | RTNeural's JSON, for real-time audio |

Each module has ``read(path) -> ModelDescription`` and ``write(path, description)``. What a format does not support is
refused by name, before anything is written; a file that is damaged or hostile is one `ModelFileError`.
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
