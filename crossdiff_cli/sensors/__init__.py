"""Sensors: the table and definitions of one's own."""
