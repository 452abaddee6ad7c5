"""What is estimated on a scene: normalisation, registration, noise."""
