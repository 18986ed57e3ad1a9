"""Pure numpy/scipy model code: no IO, clock, logging, environment or randomness."""
