"""Images as tensors, without a network: resampling by the MTF, filters, masks."""
