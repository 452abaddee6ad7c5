"""Deliveries of the vendors: which files of a folder are the PAN and the MS of one acquisition."""
