"""File formats: read a file into a model description, and write a description to a file.

============ ========================================= ========================================================
format       file names                                contents
============ ========================================= ========================================================
``fastgru``  ``*.safetensors``                         a model of this package, with its optimizer state
``tfjs``     ``model.json``                            a TensorFlow.js layers model, with weight files beside it
``keras``    ``*.keras``                               a Keras 3 model
``keras_h5`` ``*.h5``, ``*.hdf5``                      a Keras 2 (tf.keras) model
``torch``    ``*.pt``, ``*.pth``,                      a PyTorch state_dict
             ``*.torch.safetensors``
``onnx``     ``*.onnx``                                an ONNX graph
``rtneural`` ``*.rtneural.json``                       RTNeural's JSON, for real-time audio
============ ========================================= ========================================================

``KINDS`` maps each format to the endings of its file names. Most programs use `fastgru.load_model` and
`fastgru.Sequential.save` instead of this module.

Each format has a module with ``read(path)``, which returns a ``ModelDescription``, and ``write(path, description)``.
A writer raises an error before it writes anything if the format does not support the model. A reader raises
`fastgru.ModelFileError` for a damaged or hostile file.
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
