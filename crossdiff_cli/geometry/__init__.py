"""Windows, tiles and grid mappings: integers and affine arithmetic, no pixels."""
