"""Utilities of the whole package, not public: argument checks, files, memory, random numbers, sequence lengths."""
