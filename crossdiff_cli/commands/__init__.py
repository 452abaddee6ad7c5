"""The commands: each parses, imports what it needs inside its body, makes one call and echoes the result."""
