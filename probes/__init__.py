"""What does each expert encode? Activations in, tables and figures out, back into the run."""
