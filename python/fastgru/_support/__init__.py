"""What the whole package uses, and no user: checks of arguments, files, memory, random numbers, sequences' lengths."""
