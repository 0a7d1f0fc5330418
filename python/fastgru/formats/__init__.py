"""Files <-> (configuration, arrays). Formats know files, not models."""
