"""The two stages: pretraining the encoders, adapting the fusion head."""
