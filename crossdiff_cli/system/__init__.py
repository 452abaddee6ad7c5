"""Files, paths and signals of the operating system."""
