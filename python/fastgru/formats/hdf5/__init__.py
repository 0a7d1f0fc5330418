"""Reading of untrusted HDF5 files, with memory bounded by the size of the file, and writing of new ones.

Objects are read by paths that the caller knows. The reader is part of this package (`reader`, which uses `objects`,
`indexes` and `storage`); files are written with h5py (`writer`).

Contiguous arrays of numbers and attributes that are texts are supported, in all versions of the format that h5py
writes. Other contents raise an error that names them.
"""

from fastgru.formats.hdf5.reader import Reader
from fastgru.formats.hdf5.storage import SIGNATURE, UnreadableError
from fastgru.formats.hdf5.writer import to_bytes

__all__ = ["SIGNATURE", "Reader", "UnreadableError", "to_bytes"]
