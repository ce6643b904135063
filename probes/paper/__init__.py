"""The paper's figures and tables of a whole sweep, from what its probes saved."""
