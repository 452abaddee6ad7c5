"""A small satellite-scene simulator: materials and light, a canvas of ground, things on it, a landscape, a sensor."""
