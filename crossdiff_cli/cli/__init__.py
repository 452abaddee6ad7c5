"""The crossdiff command: click alone; everything else is imported inside a command's body."""
