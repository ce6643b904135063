"""What does each expert encode? From activations to result tables and figures."""
