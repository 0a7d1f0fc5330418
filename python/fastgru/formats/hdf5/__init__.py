"""Reading untrusted HDF5 files and writing new ones: arrays and texts by path, in memory bounded by the file's size.

Every object is reached by a path that the caller knows, link by link. Files are read by this package's own code
(`reader`, on `objects`, `indexes` and `storage`); they are written by h5py (`writer`).

What is read: arrays of numbers that are stored in one piece, and attributes that are texts, as h5py writes them in any
of its versions of the format. Everything else is refused by name.
"""

from fastgru.formats.hdf5.reader import Reader
from fastgru.formats.hdf5.storage import SIGNATURE, UnreadableError
from fastgru.formats.hdf5.writer import to_bytes

__all__ = ["SIGNATURE", "Reader", "UnreadableError", "to_bytes"]
