"""One run from configuration to exported model: trial, checkpoints, history, provenance."""
