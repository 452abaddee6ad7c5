"""Decide whether the memory of images that are no longer needed is reused."""

import torch


def may_overwrite() -> bool:
    """Return whether an image may be overwritten by what is made of it: no gradient is asked for that would need it."""
    return not torch.is_grad_enabled()
